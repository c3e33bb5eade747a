"""Where things are in a PE32+ image (PE/COFF): for what builds, signs, changes and reads unified kernel images.

Nothing is judged here: each reader refuses what it has no use for. An image that ends too early raises struct.error.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["CERTIFICATES", "PE32_PLUS", "SECTION", "Headers", "Section", "read_headers", "read_sections"]

PE32_PLUS: Final = 0x20B
CERTIFICATES: Final = 112 + 4 * 8
"""Offset of the certificate table's entry in the optional header of PE32+."""
SECTION: Final = struct.Struct("<8sIIIIIIHHI")


@dataclass(frozen=True, slots=True)
class Headers:
    """Offsets in the file; `count` is how many sections there are."""

    start: int
    """Of the signature, `PE` and two NULs."""
    count: int
    optional: int
    table: int

    @property
    def count_offset(self) -> int:
        """Where `count` stands."""
        return self.start + 6


@dataclass(frozen=True, slots=True)
class Section:
    """A section: where its header is, and where its bytes are in memory and in the file."""

    header: int
    name: bytes
    size: int
    """VirtualSize: how many bytes count."""
    address: int
    raw_size: int
    raw: int


def read_headers(image: bytes) -> Headers:
    """Return where the headers are, whatever they say."""
    (start,) = struct.unpack_from("<I", image, 0x3C)
    (count,) = struct.unpack_from("<H", image, start + 6)
    (optional_size,) = struct.unpack_from("<H", image, start + 20)
    return Headers(start, count, start + 24, start + 24 + optional_size)


def read_sections(image: bytes, headers: Headers) -> Iterator[Section]:
    """Yield the sections in their order."""
    for place in range(headers.count):
        header = headers.table + place * SECTION.size
        name, size, address, raw_size, raw, *_ = SECTION.unpack_from(image, header)
        yield Section(header, name.rstrip(b"\0"), size, address, raw_size, raw)
