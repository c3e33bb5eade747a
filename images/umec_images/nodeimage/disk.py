"""The disk of a node: a GUID partition table with the EFI partition, two slots for a root file system, and data.

UEFI 2.10 §5.3. Everything in it follows from what it holds and from the image's name: no random identifier.
"""

import binascii
import struct
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from umec_images.nodeimage.errors import ContentRefused, DiskTooSmall

__all__ = ["APPROVAL_AREA", "MEBIBYTE", "Partition", "approval_area", "partition_tables", "write_disk"]

SECTOR: Final = 512
MEBIBYTE: Final = 1024 * 1024
"""Partitions start at whole MiB, as every tool would place them."""
APPROVAL_AREA: Final = 16 * 1024
"""Bytes at the end of a slot for a root file system: the approval of its image, and zeros (`guest/approval.sh`)."""
ENTRIES: Final = 128
TABLE_SECTORS: Final = ENTRIES * 128 // SECTOR

_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY: Final = struct.Struct("<16s16sQQQ72s")
_NAMESPACE: Final = uuid.UUID("5c3f1e1b-6d2e-5c0a-9a0e-6a5f0b1b7c11")
_COPY: Final = 4 * MEBIBYTE


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of `size` bytes (whole MiB)."""

    name: str
    kind: uuid.UUID
    size: int


@dataclass(frozen=True, slots=True)
class Tables:
    """Both tables of a disk, and where its partitions start: all in bytes."""

    pieces: tuple[tuple[int, bytes], ...]
    starts: tuple[int, ...]
    size: int


def approval_area(approval: bytes) -> bytes:
    """Return what is written at the end of a slot; no approval gives zeros. Raises ContentRefused."""
    if len(approval) > APPROVAL_AREA or b"\0" in approval:
        raise ContentRefused(f"an approval is a text of at most {APPROVAL_AREA} bytes")
    return approval.ljust(APPROVAL_AREA, b"\0")


def partition_tables(partitions: Sequence[Partition], seed: str) -> Tables:
    """Lay out a disk; `seed` is what the identifiers of disk and partitions follow from."""
    starts = [MEBIBYTE]
    for each in partitions:
        if each.size <= 0 or each.size % MEBIBYTE:
            raise DiskTooSmall(f"the partition {each.name} has no whole MiB")
        starts.append(starts[-1] + each.size)
    size = starts.pop() + MEBIBYTE
    last = size // SECTOR - 1
    entries = bytearray(ENTRIES * 128)
    for number, (each, start) in enumerate(zip(partitions, starts, strict=True)):
        first, end = start // SECTOR, (start + each.size) // SECTOR - 1
        unique = uuid.uuid5(_NAMESPACE, f"{seed}/{each.name}")
        name = each.name.encode("utf-16-le")
        _ENTRY.pack_into(entries, number * 128, each.kind.bytes_le, unique.bytes_le, first, end, 0, name)
    disk = uuid.uuid5(_NAMESPACE, seed)
    pieces = (
        (0, _protective(last)),
        (SECTOR, _header(1, last, 2, last, disk, bytes(entries))),
        (2 * SECTOR, bytes(entries)),
        ((last - TABLE_SECTORS) * SECTOR, bytes(entries)),
        (last * SECTOR, _header(last, 1, last - TABLE_SECTORS, last, disk, bytes(entries))),
    )
    return Tables(pieces, tuple(starts), size)


def write_disk(
    target: Path,
    partitions: Sequence[Partition],
    seed: str,
    pieces: Iterable[tuple[str, int, bytes]],
    copies: Iterable[tuple[str, Path]],
) -> None:
    """Write a (sparse) disk: `pieces` and whole files go into the partitions they name. Raises DiskTooSmall."""
    tables = partition_tables(partitions, seed)
    places = {each.name: (start, each.size) for each, start in zip(partitions, tables.starts, strict=True)}
    with target.open("wb") as disk:
        disk.truncate(tables.size)
        for offset, data in tables.pieces:
            disk.seek(offset)
            disk.write(data)
        for name, offset, data in pieces:
            start, size = places[name]
            if offset + len(data) > size:
                raise DiskTooSmall(f"what belongs into the partition {name} does not fit into its {size} bytes")
            disk.seek(start + offset)
            disk.write(data)
        for name, source in copies:
            start, size = places[name]
            if source.stat().st_size > size:
                raise DiskTooSmall(
                    f"{source.name} has {source.stat().st_size} bytes, and the partition {name} has {size}",
                    advice="enlarge it under [disk] in the recipe",
                )
            disk.seek(start)
            _copy(source, disk)


def _copy(source: Path, disk: IO[bytes]) -> None:
    with source.open("rb") as file:
        while part := file.read(_COPY):
            disk.write(part)


def _protective(last: int) -> bytes:
    entry = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, min(last, 0xFFFF_FFFF))
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def _header(here: int, other: int, table: int, last: int, disk: uuid.UUID, entries: bytes) -> bytes:
    usable = (2 + TABLE_SECTORS, last - TABLE_SECTORS - 1)
    rest = (*usable, disk.bytes_le, table, ENTRIES, 128, binascii.crc32(entries))
    draft = _HEADER.pack(b"EFI PART", 0x10000, _HEADER.size, 0, 0, here, other, *rest)
    header = _HEADER.pack(b"EFI PART", 0x10000, _HEADER.size, binascii.crc32(draft), 0, here, other, *rest)
    return header + bytes(SECTOR - len(header))
