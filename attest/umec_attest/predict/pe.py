"""PE images as firmware measures them: Authenticode digest and sections (PE/COFF; Authenticode PE 1.0)."""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from umec_attest.errors import ImageFolderInvalid

__all__ = ["PeImage", "Section", "parse_pe"]

MAX_SECTIONS: Final = 96
"""What Windows' loader accepts; a unified kernel image has about a dozen."""
MAX_SECTION_SIZE: Final = 1024 * 1024 * 1024
"""An initrd of more than 1 GiB is a mistake, and a section that pretends one would fill our memory."""
MAX_ZEROS: Final = 64 * 1024
"""What a section may be longer in memory than in the file, which else fills our memory with zeros that it has not."""

_MACHINE_HEADER: Final = 24
"""Signature "PE" with two NULs, and the COFF file header."""
_DIRECTORIES_OFFSET: Final = {0x10B: 96, 0x20B: 112}
"""Offset of the data directories in the optional header: PE32, PE32+."""
_CHECKSUM_OFFSET: Final = 64
_SIZE_OF_HEADERS_OFFSET: Final = 60
_SECURITY_DIRECTORY: Final = 4
_SECTION_HEADER: Final = struct.Struct("<8sIIII12xI")


@dataclass(frozen=True, slots=True)
class Section:
    """A section: where its bytes are in the file, how many of them are loaded, and to which address of the image."""

    name: str
    address: int
    virtual_size: int
    raw_size: int
    raw_offset: int


@dataclass(frozen=True, slots=True)
class PeImage:
    """A PE image with the offsets that its digest depends on."""

    data: bytes
    sections: tuple[Section, ...]
    checksum: int
    security_entry: int
    headers_size: int
    certificates_size: int

    def authenticode_sha256(self) -> bytes:
        """Return the digest that UEFI measures: everything but checksum, certificate entry and certificates."""
        digest = hashlib.sha256()
        for piece in self._authenticode_pieces():
            digest.update(piece)
        return digest.digest()

    def certificates(self) -> bytes:
        """Return the certificate table: what the image is signed with; empty where it is not."""
        return self.data[len(self.data) - self.certificates_size :]

    def section(self, name: str) -> bytes | None:
        """Return a section as it is in memory: its first `virtual_size` bytes, zeros where the file has fewer."""
        found = [section for section in self.sections if section.name == name]
        if not found:
            return None
        if len(found) > 1:
            raise ImageFolderInvalid(f"the section {name} is there {len(found)} times")
        section = found[0]
        stored = min(section.virtual_size, section.raw_size)
        if section.virtual_size - stored > MAX_ZEROS:
            raise ImageFolderInvalid(f"the file has {stored} of the {section.virtual_size} bytes of the section {name}")
        content = self.data[section.raw_offset : section.raw_offset + stored]
        return content + bytes(section.virtual_size - stored)

    def _authenticode_pieces(self) -> Iterator[memoryview]:
        view = memoryview(self.data)
        yield view[: self.checksum]
        yield view[self.checksum + 4 : self.security_entry]
        yield view[self.security_entry + 8 : self.headers_size]
        hashed = self.headers_size
        for section in sorted(self.sections, key=lambda section: section.raw_offset):
            if section.raw_size:
                yield view[section.raw_offset : section.raw_offset + section.raw_size]
                hashed += section.raw_size
        yield view[hashed : len(view) - self.certificates_size]


def parse_pe(data: bytes, *, what: str) -> PeImage:
    """Parse a PE32 or PE32+ image.

    Errors: `ImageFolderInvalid` for anything out of bounds, overlapping, or certificates that are not at the end.
    """
    try:
        return _parse(data)
    except (struct.error, IndexError, ValueError) as error:
        raise ImageFolderInvalid(f"{what} is no PE image: {error}") from None


def _parse(data: bytes) -> PeImage:
    if data[:2] != b"MZ":
        raise ValueError("it does not begin with MZ")
    (header,) = struct.unpack_from("<I", data, 0x3C)
    if data[header : header + 4] != b"PE\0\0":
        raise ValueError("no PE signature")
    (count,) = struct.unpack_from("<H", data, header + 6)
    (optional_size,) = struct.unpack_from("<H", data, header + 20)
    optional = header + _MACHINE_HEADER
    (magic,) = struct.unpack_from("<H", data, optional)
    if magic not in _DIRECTORIES_OFFSET:
        raise ValueError(f"neither PE32 nor PE32+ (0x{magic:x})")
    directories = optional + _DIRECTORIES_OFFSET[magic]
    (directory_count,) = struct.unpack_from("<I", data, directories - 4)
    entry = directories + _SECURITY_DIRECTORY * 8
    if directory_count <= _SECURITY_DIRECTORY or entry + 8 > optional + optional_size:
        raise ValueError("there is no certificate entry in the optional header")
    offset, size = struct.unpack_from("<II", data, entry)
    if size and offset + size != len(data):
        raise ValueError("the certificates are not at the end of the file")
    (headers_size,) = struct.unpack_from("<I", data, optional + _SIZE_OF_HEADERS_OFFSET)
    table = optional + optional_size
    if not table + count * _SECTION_HEADER.size <= headers_size <= len(data) - size or count > MAX_SECTIONS:
        raise ValueError("the headers are larger or smaller than they say")
    sections = tuple(_section(data, table + n * _SECTION_HEADER.size) for n in range(count))
    _check_layout(sections, headers_size, len(data) - size)
    return PeImage(data, sections, optional + _CHECKSUM_OFFSET, entry, headers_size, size)


def _section(data: bytes, offset: int) -> Section:
    name, virtual_size, address, raw_size, raw_offset, _flags = _SECTION_HEADER.unpack_from(data, offset)
    if virtual_size > MAX_SECTION_SIZE:
        raise ValueError(f"a section of {virtual_size} bytes is beyond the limit of {MAX_SECTION_SIZE}")
    return Section(name.rstrip(b"\0").decode("ascii"), address, virtual_size, raw_size, raw_offset)


def _check_layout(sections: tuple[Section, ...], start: int, end: int) -> None:
    """Sections are within the file and do not overlap, so that every byte is hashed exactly once."""
    for section in sorted((section for section in sections if section.raw_size), key=lambda found: found.raw_offset):
        if section.raw_offset < start:
            raise ValueError(f"section {section.name} overlaps with what is before it")
        start = section.raw_offset + section.raw_size
    if start > end:
        raise ValueError("a section ends beyond the file")
