"""Distinguished names (RFC 5280, 4.1.2.4 and 7.1), compared as text and not as bytes.

Kept apart from `cryptography.x509.Name`, which warns about attributes that real vendors make too long.
"""

from dataclasses import dataclass
from typing import Final

from umec_attest.certificates.der import OBJECT_IDENTIFIER, SEQUENCE, SET, DerInvalid, Element, elements, one

__all__ = ["DistinguishedName", "parse_name"]

_UTF8, _PRINTABLE, _T61, _IA5, _UNIVERSAL, _BMP = 0x0C, 0x13, 0x14, 0x16, 0x1C, 0x1E
_ENCODINGS: Final = {
    _UTF8: "utf-8",
    _PRINTABLE: "ascii",
    _T61: "latin-1",
    _IA5: "ascii",
    _UNIVERSAL: "utf-32-be",
    _BMP: "utf-16-be",
}


@dataclass(frozen=True, slots=True)
class DistinguishedName:
    """The relative names from the root on; each is a set of (attribute type as hex of its OID, text)."""

    rdns: tuple[frozenset[tuple[str, str]], ...]

    def is_below(self, other: "DistinguishedName") -> bool:
        """Tell whether this name lies in the subtree of another one (RFC 5280, 7.1)."""
        return self.rdns[: len(other.rdns)] == other.rdns

    def __str__(self) -> str:
        """Return the texts, for messages."""
        return ", ".join(text for rdn in self.rdns for _, text in sorted(rdn)) or "(no name)"


def parse_name(der: bytes) -> DistinguishedName:
    """Parse the DER of a Name; raises `DerInvalid`."""
    return DistinguishedName(tuple(_relative(rdn) for rdn in elements(one(der, SEQUENCE).content)))


def _relative(rdn: Element) -> frozenset[tuple[str, str]]:
    if rdn.tag != SET or not rdn.content:
        raise DerInvalid("a relative name is a set of attributes")
    return frozenset(_attribute(attribute) for attribute in elements(rdn.content))


def _attribute(attribute: Element) -> tuple[str, str]:
    parts = list(elements(attribute.content))
    if attribute.tag != SEQUENCE or len(parts) != 2 or parts[0].tag != OBJECT_IDENTIFIER:
        raise DerInvalid("an attribute of a name is a type and a value")
    return parts[0].content.hex(), _folded(parts[1])


def _folded(value: Element) -> str:
    """Return what two equal values have in common: case and repeated blanks do not tell them apart."""
    encoding = _ENCODINGS.get(value.tag)
    if encoding is None:
        return value.encoded.hex()
    try:
        return " ".join(value.content.decode(encoding).casefold().split())
    except UnicodeDecodeError as error:
        raise DerInvalid("an attribute of a name is no text") from error
