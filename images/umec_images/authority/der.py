"""As much DER (X.690) as a time stamp needs: an encoder (`umec_images.der`), and a strict bounded reader.

Definite lengths in their shortest form only; tags below 31 only. A value is its whole encoding (tag, length, content).
"""

from dataclasses import dataclass
from datetime import datetime

from umec_images.authority.errors import TimestampRequestInvalid
from umec_images.der import INTEGER, OCTET_STRING, OID, SEQUENCE, integer, octets, oid, sequence, set_of, tlv

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
GENERALIZED_TIME = 0x18


def generalized_time(moment: datetime) -> bytes:
    """GeneralizedTime in UTC, whole seconds (RFC 3161 §2.4.2)."""
    return tlv(GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode())


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
