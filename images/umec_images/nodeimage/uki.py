"""A unified kernel image: systemd's stub with command line, kernel, initrd and os-release as sections of one PE file.

The sections are appended in a fixed order behind those of the stub; nothing of a moment or a machine goes in.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from umec_images.nodeimage.errors import UkiInvalid
from umec_images.nodeimage.pe import CERTIFICATES, PE32_PLUS, SECTION, Headers, read_headers, read_sections

__all__ = ["SECTIONS", "assemble"]

SECTIONS: Final = (".osrel", ".cmdline", ".initrd", ".linux")
"""The kernel is last, so that it may grow in memory when it unpacks itself."""
ALIGNMENT: Final = 4096
"""Of sections in memory: more than the stub asks for, and what every kernel is content with."""

_DATA_READ: Final = 0x4000_0040
"""IMAGE_SCN_CNT_INITIALIZED_DATA, IMAGE_SCN_MEM_READ."""


@dataclass(frozen=True, slots=True)
class _Header:
    """Offsets of what changes when sections are added, and what the new ones have to follow."""

    headers: Headers
    headers_size: int
    file_alignment: int
    memory_end: int
    first_raw: int
    raw_end: int


def assemble(stub: bytes, content: Mapping[str, bytes]) -> bytes:
    """Return the stub with these sections, unsigned and without a checksum. Raises UkiInvalid.

    `content` has a value for each name of SECTIONS; the command line and os-release are text without a NUL.
    """
    if set(content) != set(SECTIONS):
        raise UkiInvalid(f"a unified kernel image has {', '.join(SECTIONS)}, and nothing else")
    empty = [name for name in SECTIONS if not content[name]]
    if empty:
        raise UkiInvalid(f"{', '.join(empty)}: nothing in it")
    try:
        header = _read(stub)
    except struct.error:
        raise UkiInvalid("the stub ends in the middle of its headers") from None
    found = header.headers
    table_end = found.table + SECTION.size * (found.count + len(SECTIONS))
    if table_end > min(header.headers_size, header.first_raw):
        raise UkiInvalid(f"the headers of the stub have no room for {len(SECTIONS)} sections more")
    image = bytearray(stub[: header.raw_end])  # what is behind the last section (symbols) is measured by no firmware
    struct.pack_into("<II", image, found.count_offset + 6, 0, 0)  # PointerToSymbolTable, NumberOfSymbols
    address = header.memory_end
    for place, name in enumerate(SECTIONS, found.count):
        data = content[name]
        image += bytes(-len(image) % header.file_alignment)
        address = _aligned(address, ALIGNMENT)
        raw_size = _aligned(len(data), header.file_alignment)
        entry = (name.encode(), len(data), address, raw_size, len(image), 0, 0, 0, 0, _DATA_READ)
        SECTION.pack_into(image, found.table + place * SECTION.size, *entry)
        image += data + bytes(raw_size - len(data))
        address += len(data)
    struct.pack_into("<H", image, found.count_offset, found.count + len(SECTIONS))
    struct.pack_into("<I", image, found.optional + 56, _aligned(address, ALIGNMENT))  # SizeOfImage
    struct.pack_into("<I", image, found.optional + 64, 0)  # CheckSum: no firmware looks at it
    return bytes(image)


def _read(stub: bytes) -> _Header:
    if stub[:2] != b"MZ":
        raise UkiInvalid("the stub does not begin with MZ")
    headers = read_headers(stub)
    if stub[headers.start : headers.start + 4] != b"PE\0\0":
        raise UkiInvalid("the stub has no PE signature")
    optional = headers.optional
    (magic,) = struct.unpack_from("<H", stub, optional)
    if magic != PE32_PLUS:
        raise UkiInvalid("the stub is not PE32+")
    (file_alignment,) = struct.unpack_from("<I", stub, optional + 36)
    (headers_size,) = struct.unpack_from("<I", stub, optional + 60)
    (directories,) = struct.unpack_from("<I", stub, optional + 108)
    certificates = struct.unpack_from("<II", stub, optional + CERTIFICATES) if directories > 4 else (0, 0)
    if certificates != (0, 0):
        raise UkiInvalid("the stub is signed: sections behind its signature would count for nothing")
    if file_alignment not in (1 << bit for bit in range(9, 17)):
        raise UkiInvalid(f"the stub's file alignment is {file_alignment}")
    sections = list(read_sections(stub, headers))
    if not sections:
        raise UkiInvalid("the stub has no sections")
    taken = {each.name.decode("ascii", "replace") for each in sections} & set(SECTIONS)
    if taken:
        raise UkiInvalid(f"the stub already has {', '.join(sorted(taken))}")
    memory_end = max(each.address + max(each.size, each.raw_size) for each in sections)
    places = [(each.raw, each.raw + each.raw_size) for each in sections if each.raw_size]
    first_raw = min((begin for begin, _ in places), default=headers_size)
    raw_end = max((end for _, end in places), default=headers_size)
    if raw_end > len(stub):
        raise UkiInvalid("a section of the stub ends behind its file")
    return _Header(headers, headers_size, file_alignment, memory_end, first_raw, raw_end)


def _aligned(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
