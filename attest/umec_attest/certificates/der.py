"""The DER (X.690) of a certificate: cut into pieces, and the two mistakes of vendors mended.

| mistake                                             | seen in            | mended by                     |
|-----------------------------------------------------|--------------------|-------------------------------|
| the rest of the NV index is read as if it belonged  | STMicroelectronics | dropping it: all 0xFF or 0x00 |
| the attributes of a name are not in order (SET OF)  | Nuvoton            | sorting them (X.690, 11.6)    |

Neither adds, removes or changes anything that a certificate says, and the signature is verified over the bytes as they
came. Everything else stays what it is: malformed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["DerInvalid", "Element", "Pieces", "cut", "elements", "mend", "one"]

SEQUENCE: Final = 0x30
SET: Final = 0x31
OCTET_STRING: Final = 0x04
BIT_STRING: Final = 0x03
OBJECT_IDENTIFIER: Final = 0x06
_CONSTRUCTED: Final = 0x20
_HIGH_TAG: Final = 0x1F

_VERSION: Final = 0xA0
_EXTENSIONS: Final = 0xA3

_MAX_DEPTH: Final = 16
"""Certificates nest about ten levels deep."""

_SUBJECT_ALTERNATIVE_NAME: Final = bytes.fromhex("0603551d11")
"""2.5.29.17, encoded: the one extension in which a TPM's certificate carries a name."""


class DerInvalid(ValueError):
    """Bytes that are not the DER of a certificate."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its tag, its content, and both with the length between them as they were encoded."""

    tag: int
    content: bytes
    encoded: bytes


@dataclass(frozen=True, slots=True)
class Pieces:
    """A certificate, cut: what is signed, the algorithm inside and outside of it, the signature, and two names."""

    tbs: bytes
    inner_algorithm: bytes
    outer_algorithm: bytes
    signature: bytes
    issuer: bytes
    subject: bytes


def elements(data: bytes) -> Iterator[Element]:
    """Yield the elements that stand one behind the other in `data`.

    Raises `DerInvalid` for a tag above 30, an indefinite or longer than needed length, and a truncated end.
    """
    offset = 0
    while offset < len(data):
        element = _read(data, offset)
        yield element
        offset += len(element.encoded)


def one(data: bytes, tag: int) -> Element:
    """Return the only element of `data`, which must have this tag."""
    found = list(elements(data))
    if len(found) != 1 or found[0].tag != tag:
        raise DerInvalid(f"one element with tag 0x{tag:02x} expected")
    return found[0]


def cut(der: bytes) -> Pieces:
    """Cut a certificate (RFC 5280, 4.1) into its pieces. Raises `DerInvalid`."""
    parts = list(elements(one(der, SEQUENCE).content))
    if [part.tag for part in parts] != [SEQUENCE, SEQUENCE, BIT_STRING] or parts[2].content[:1] != b"\0":
        raise DerInvalid("a certificate is what is signed, an algorithm and a signature")
    fields = [field for field in elements(parts[0].content) if field.tag != _VERSION]
    if [field.tag for field in fields[1:5]] != [SEQUENCE] * 4:  # serial number, algorithm, issuer, validity, subject
        raise DerInvalid("the part that is signed is not that of a certificate")
    return Pieces(
        tbs=parts[0].encoded,
        inner_algorithm=fields[1].encoded,
        outer_algorithm=parts[1].encoded,
        signature=parts[2].content[1:],
        issuer=fields[2].encoded,
        subject=fields[4].encoded,
    )


def mend(der: bytes) -> bytes:
    """Return the certificate without the two mistakes above; `der` itself if it has neither. Raises `DerInvalid`."""
    outer = _read(der, 0)
    if set(der[len(outer.encoded) :]) not in (set(), {0x00}, {0xFF}):
        raise DerInvalid("what follows the certificate is no padding")
    return _in_order(outer, depth=0)


def _read(data: bytes, offset: int) -> Element:
    if len(data) - offset < 2:
        raise DerInvalid("truncated")
    tag, length, start = data[offset], data[offset + 1], offset + 2
    if tag & _HIGH_TAG == _HIGH_TAG:
        raise DerInvalid("a tag above 30 has no place in a certificate")
    if length >= 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(data[start : start + size], "big"), start + size
        if length < 0x80 or length >> 8 * (size - 1) == 0:
            raise DerInvalid("a length that is indefinite, or not in its shortest form")
    end = start + length
    if end > len(data):
        raise DerInvalid("truncated")
    return Element(tag, data[start:end], data[offset:end])


def _in_order(element: Element, *, depth: int) -> bytes:
    """Return the element with each SET below it in order; lengths stay what they were."""
    if depth > _MAX_DEPTH:
        raise DerInvalid("nested too deeply")
    if not element.tag & _CONSTRUCTED:
        return element.encoded
    head = element.encoded[: len(element.encoded) - len(element.content)]
    below = list(elements(element.content))
    if element.tag == SEQUENCE and below and below[0].encoded == _SUBJECT_ALTERNATIVE_NAME:
        return head + _in_order_inside(below, depth)
    parts = [_in_order(part, depth=depth + 1) for part in below]
    return head + b"".join(sorted(parts) if element.tag == SET else parts)


def _in_order_inside(extension: list[Element], depth: int) -> bytes:
    """Return the content of an extension whose value, which is wrapped into an OCTET STRING, holds names."""
    *front, value = extension
    if value.tag != OCTET_STRING:
        raise DerInvalid("the value of an extension is an octet string")
    head = value.encoded[: len(value.encoded) - len(value.content)]
    names = b"".join(_in_order(part, depth=depth + 1) for part in elements(value.content))
    return b"".join(part.encoded for part in front) + head + names
