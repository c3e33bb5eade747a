"""PE32+ images as a boot loader meets them: write one, find its sections, hash it as Authenticode does.

Layout after Microsoft's "PE Format"; the hash after "Windows Authenticode Portable Executable Signature Format".
"""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from umec_attest.testing.errors import ImageInvalid

__all__ = ["PeSection", "authenticode_sha256", "is_pe", "make_pe", "pe_sections", "section_bytes"]

PE_OFFSET: Final = 0x80
COFF: Final = struct.Struct("<HHIIIHH")
SECTION: Final = struct.Struct("<8sIIIIIIHHI")
OPTIONAL_HEADER_SIZE: Final = 112 + 16 * 8
CHECKSUM_AT: Final = 64
CERTIFICATE_TABLE_AT: Final = 112 + 4 * 8
FILE_ALIGNMENT: Final = 0x200
SECTION_ALIGNMENT: Final = 0x1000
MACHINE_X64: Final = 0x8664
MAGIC_PE32_PLUS: Final = 0x20B
EXECUTABLE: Final = 0x0002 | 0x0020  # executable image, large address aware
EFI_APPLICATION: Final = 10
INITIALIZED_READ: Final = 0x40000040
CODE_EXECUTE_READ: Final = 0x60000020


@dataclass(frozen=True, slots=True)
class PeSection:
    """A section: its size in memory and where its bytes lie in the file."""

    name: str
    virtual_size: int
    raw_size: int
    raw_offset: int


def make_pe(sections: Mapping[str, bytes]) -> bytes:
    """Return a PE32+ EFI application with a small code section and these sections, in their order."""
    parts = {".text": b"\x31\xc0\xc3", **sections}
    headers_size = _aligned(
        PE_OFFSET + 4 + COFF.size + OPTIONAL_HEADER_SIZE + SECTION.size * len(parts), FILE_ALIGNMENT
    )
    table, body = b"", b""
    address = SECTION_ALIGNMENT
    for name, data in parts.items():
        raw = data.ljust(_aligned(len(data), FILE_ALIGNMENT), b"\0")
        flags = CODE_EXECUTE_READ if name == ".text" else INITIALIZED_READ
        place = headers_size + len(body)
        table += SECTION.pack(name.encode(), len(data), address, len(raw), place if raw else 0, 0, 0, 0, 0, flags)
        body += raw
        address += _aligned(max(len(data), 1), SECTION_ALIGNMENT)
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", PE_OFFSET)
    coff = COFF.pack(MACHINE_X64, len(parts), 0, 0, 0, OPTIONAL_HEADER_SIZE, EXECUTABLE)
    headers = dos.ljust(PE_OFFSET, b"\0") + b"PE\0\0" + coff + _optional_header(address, headers_size) + table
    return headers.ljust(headers_size, b"\0") + body


def is_pe(image: bytes) -> bool:
    """Tell whether a loader would take these bytes for a PE32+ image."""
    try:
        pe_sections(image)
    except ImageInvalid:
        return False
    return True


def pe_sections(image: bytes) -> tuple[PeSection, ...]:
    """Return the sections in the order of the table. Raises ImageInvalid."""
    optional, count, optional_size = _headers(image)
    sections = []
    for index in range(count):
        place = optional + optional_size + index * SECTION.size
        if place + SECTION.size > len(image):
            raise ImageInvalid("the section table reaches beyond the file")
        name, virtual_size, _, raw_size, raw_offset, *_ = SECTION.unpack_from(image, place)
        if raw_offset + raw_size > len(image):
            raise ImageInvalid(f"section {name!r} reaches beyond the file")
        text = name.rstrip(b"\0").decode("ascii", "replace")
        sections.append(PeSection(text, virtual_size, raw_size, raw_offset))
    return tuple(sections)


def section_bytes(image: bytes, name: str) -> bytes | None:
    """Return what a section holds in memory (its raw data up to the virtual size), or None if there is none."""
    for section in pe_sections(image):
        if section.name == name:
            size = min(section.virtual_size, section.raw_size)
            return image[section.raw_offset : section.raw_offset + size]
    return None


def authenticode_sha256(image: bytes) -> bytes:
    """Hash an image without its checksum, its certificate table entry and its certificates."""
    optional, _, _ = _headers(image)
    headers_size = int(struct.unpack_from("<I", image, optional + 60)[0])
    checksum, entry = optional + CHECKSUM_AT, optional + CERTIFICATE_TABLE_AT
    certificates_size = int(struct.unpack_from("<I", image, entry + 4)[0])
    state = hashlib.sha256()
    state.update(image[:checksum])
    state.update(image[checksum + 4 : entry])
    state.update(image[entry + 8 : headers_size])
    hashed = headers_size
    for section in sorted(pe_sections(image), key=lambda section: section.raw_offset):
        if section.raw_size:
            state.update(image[section.raw_offset : section.raw_offset + section.raw_size])
            hashed += section.raw_size
    state.update(image[hashed : len(image) - certificates_size])
    return state.digest()


def _headers(image: bytes) -> tuple[int, int, int]:
    """Return the offset of the optional header, the number of sections, the size of the optional header."""
    if len(image) < 0x40 or image[:2] != b"MZ":
        raise ImageInvalid("not a PE image: no DOS header")
    start = int(struct.unpack_from("<I", image, 0x3C)[0])
    optional = start + 4 + COFF.size
    if optional + OPTIONAL_HEADER_SIZE > len(image) or image[start : start + 4] != b"PE\0\0":
        raise ImageInvalid("not a PE image: no PE header")
    _, count, _, _, _, optional_size, _ = COFF.unpack_from(image, start + 4)
    if struct.unpack_from("<H", image, optional)[0] != MAGIC_PE32_PLUS or optional_size < OPTIONAL_HEADER_SIZE:
        raise ImageInvalid("not a PE32+ image")
    return optional, count, optional_size


def _optional_header(image_size: int, headers_size: int) -> bytes:
    standard = struct.pack(
        "<HBBIIIII", MAGIC_PE32_PLUS, 14, 0, FILE_ALIGNMENT, 0, 0, SECTION_ALIGNMENT, SECTION_ALIGNMENT
    )
    windows = struct.pack("<QII", 0, SECTION_ALIGNMENT, FILE_ALIGNMENT)
    versions = struct.pack("<HHHHHHI", 0, 0, 0, 0, 0, 0, 0)
    sizes = struct.pack("<IIIHH", image_size, headers_size, 0, EFI_APPLICATION, 0)
    memory = struct.pack("<QQQQII", 0, 0, 0, 0, 0, 16)
    return (standard + windows + versions + sizes + memory).ljust(OPTIONAL_HEADER_SIZE, b"\0")


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
