"""The partitions of a disk image (GUID partition table, UEFI 2.10 §5.3), and copying them between disks."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from umec_images.machine.errors import DiskUnreadable

__all__ = ["Span", "copy_span", "read_span", "spans", "write_span"]

SECTOR: Final = 512
MAX_ENTRIES: Final = 128
ENTRY_SIZE: Final = 128
_HEADER: Final = struct.Struct("<8s64xQII")
_ENTRY: Final = struct.Struct("<16s16sQQQ72s")
_COPY: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Span:
    """A partition, or what else is told by its place: bytes from the start of the disk."""

    start: int
    size: int


def spans(disk: Path) -> Mapping[str, Span]:
    """Return the partitions by their names. Raises DiskUnreadable."""
    with disk.open("rb") as file:
        head = file.read(2 * SECTOR)
        size = disk.stat().st_size
        if len(head) < 2 * SECTOR or head[SECTOR : SECTOR + 8] != b"EFI PART":
            raise DiskUnreadable(f"{disk} has no GUID partition table")
        _, table, count, entry_size = _HEADER.unpack_from(head, SECTOR)
        if not 0 < count <= MAX_ENTRIES or entry_size != ENTRY_SIZE or table * SECTOR > size:
            raise DiskUnreadable(f"{disk}: {count} entries of {entry_size} bytes are no table that is read here")
        file.seek(table * SECTOR)
        data = file.read(count * ENTRY_SIZE)
    if len(data) < count * ENTRY_SIZE:
        raise DiskUnreadable(f"{disk} ends in its partition table")
    found: dict[str, Span] = {}
    for kind, _unique, first, last, _flags, name in _ENTRY.iter_unpack(data):
        if kind == bytes(16):
            continue
        if not 0 < first <= last or (last + 1) * SECTOR > size:
            raise DiskUnreadable(f"{disk}: a partition lies beyond its end")
        text = name.decode("utf-16-le", "replace").partition("\0")[0]
        if text in found:
            raise DiskUnreadable(f"{disk} has two partitions {text!r}")
        found[text] = Span(first * SECTOR, (last + 1 - first) * SECTOR)
    if not found:
        raise DiskUnreadable(f"{disk} has no partition")
    return found


def read_span(disk: Path, span: Span) -> bytes:
    """Return what is in a partition."""
    with disk.open("rb") as file:
        file.seek(span.start)
        return file.read(span.size)


def write_span(disk: Path, span: Span, offset: int, data: bytes) -> None:
    """Overwrite a piece of a partition. Raises DiskUnreadable where it would not lie within."""
    if offset < 0 or offset + len(data) > span.size:
        raise DiskUnreadable(f"{len(data)} bytes at {offset} are not within a partition of {span.size}")
    with disk.open("r+b") as file:
        file.seek(span.start + offset)
        file.write(data)


def copy_span(source: Path, target: Path, span: Span) -> None:
    """Copy the same bytes of one disk to another."""
    with source.open("rb") as reading, target.open("r+b") as writing:
        reading.seek(span.start)
        writing.seek(span.start)
        left = span.size
        while left and (part := reading.read(min(left, _COPY))):
            writing.write(part)
            left -= len(part)
