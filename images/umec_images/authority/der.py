"""As much DER (X.690) as a time stamp needs: an encoder, and a strict bounded reader.

Definite lengths in their shortest form only; tags below 31 only. A value is its whole encoding (tag, length, content).
"""

from dataclasses import dataclass
from datetime import datetime

from umec_images.authority.errors import TimestampRequestInvalid

__all__ = [
    "BOOLEAN",
    "INTEGER",
    "OCTET_STRING",
    "OID",
    "SEQUENCE",
    "Reader",
    "generalized_time",
    "integer",
    "octets",
    "oid",
    "sequence",
    "set_of",
    "tlv",
]

BOOLEAN = 0x01
INTEGER = 0x02
OCTET_STRING = 0x04
OID = 0x06
GENERALIZED_TIME = 0x18
SEQUENCE = 0x30
SET = 0x31


def tlv(tag: int, content: bytes) -> bytes:
    """Return `content` under `tag`, with a definite length."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def sequence(*values: bytes) -> bytes:
    """SEQUENCE of values that are encoded already."""
    return tlv(SEQUENCE, b"".join(values))


def set_of(*values: bytes, tag: int = SET) -> bytes:
    """SET OF encoded values, in the order that DER demands (X.690 §11.6)."""
    return tlv(tag, b"".join(sorted(values)))


def integer(value: int) -> bytes:
    """INTEGER of a number ≥ 0, in its shortest form."""
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def octets(value: bytes) -> bytes:
    """OCTET STRING."""
    return tlv(OCTET_STRING, value)


def oid(dotted: str) -> bytes:
    """OBJECT IDENTIFIER of a dotted name (X.690 §8.19)."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    return tlv(OID, b"".join(_base128(arc) for arc in (40 * first + second, *rest)))


def generalized_time(moment: datetime) -> bytes:
    """GeneralizedTime in UTC, whole seconds (RFC 3161 §2.4.2)."""
    return tlv(GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode())


def _base128(arc: int) -> bytes:
    parts = [arc & 0x7F]
    while arc := arc >> 7:
        parts.append(0x80 | (arc & 0x7F))
    return bytes(reversed(parts))


@dataclass(slots=True)
class Reader:
    """Reads values one after the other from `data`; anything unexpected raises TimestampRequestInvalid."""

    data: bytes
    offset: int = 0

    def at_end(self) -> bool:
        """Say whether every byte was read."""
        return self.offset == len(self.data)

    def next_tag(self) -> int | None:
        """Return the tag of the next value without reading it; None at the end."""
        return None if self.at_end() else self.data[self.offset]

    def read(self, tag: int) -> bytes:
        """Return the content of the next value, which must have this tag."""
        if self.next_tag() != tag:
            raise TimestampRequestInvalid(f"expected tag {tag:#04x} at byte {self.offset}")
        self.offset += 1
        size = self._length()
        return self._take(size)

    def enter(self, tag: int) -> "Reader":
        """Return a reader of the content of the next value, which must have this tag."""
        return Reader(self.read(tag))

    def finish(self) -> None:
        """Refuse bytes that nobody read."""
        if not self.at_end():
            raise TimestampRequestInvalid(f"{len(self.data) - self.offset} bytes too many")

    def _take(self, size: int) -> bytes:
        end = self.offset + size
        if end > len(self.data):
            raise TimestampRequestInvalid("the request ends in the middle of a value")
        content, self.offset = self.data[self.offset : end], end
        return content

    def _length(self) -> int:
        first = self._take(1)[0]
        if first < 0x80:
            return first
        if first == 0x80:
            raise TimestampRequestInvalid("a length is indefinite")
        encoded = self._take(first & 0x7F)
        size = int.from_bytes(encoded, "big")
        if encoded[0] == 0 or size < 0x80:
            raise TimestampRequestInvalid("a length is not in its shortest form")
        return size
