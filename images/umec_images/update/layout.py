"""The partitions that an update needs: the EFI partition and both slots (GUID partition table, UEFI 2.10 §5.3)."""

import binascii
import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from umec_images.update.device import SECTOR, Area, Device
from umec_images.update.errors import DiskUnfit

__all__ = ["ROOTS", "Layout", "Partition", "read_layout"]

ESP: Final = "esp"
ROOTS: Final = ("root-a", "root-b")
"""In the order in which a node looks for its root file system."""
MAX_ENTRIES: Final = 128

_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY: Final = struct.Struct("<16s16sQQQ72s")


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition: `number` counts from one, as a firmware does; `identity` is its own identifier."""

    number: int
    identity: uuid.UUID
    area: Area


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are on a node's disk."""

    esp: Partition
    roots: Mapping[str, Partition]
    """By name, in the order of ROOTS."""


def read_layout(device: Device) -> Layout:
    """Read the first table of a disk. Raises DiskUnfit, also where a checksum does not hold."""
    found: dict[str, Partition] = {}
    for number, entry in enumerate(_entries(device), 1):
        kind, identity, first, last, _flags, name = entry
        if kind == bytes(16):
            continue
        if not 0 < first <= last < device.size // SECTOR:
            raise DiskUnfit("a partition lies beyond the end of the disk")
        text = name.decode("utf-16-le", "replace").partition("\0")[0]
        if text in found:
            raise DiskUnfit(f"the disk has two partitions {text!r}")
        area = Area(device, first * SECTOR, (last + 1 - first) * SECTOR)
        found[text] = Partition(number, uuid.UUID(bytes_le=identity), area)
    missing = [name for name in (ESP, *ROOTS) if name not in found]
    if missing:
        raise DiskUnfit(f"the disk has no partition {', '.join(missing)}")
    return Layout(found[ESP], {name: found[name] for name in ROOTS})


def _entries(device: Device) -> Iterator[tuple[bytes, bytes, int, int, int, bytes]]:
    if device.size < 2 * SECTOR:
        raise DiskUnfit("the disk has no GUID partition table")
    header = device.read(SECTOR, _HEADER.size)
    magic, _, size, crc, _, _, _, _, _, _, table, count, entry_size, entries_crc = _HEADER.unpack(header)
    whole = header[:16] + bytes(4) + header[20:]
    if magic != b"EFI PART" or size != _HEADER.size or binascii.crc32(whole) != crc:
        raise DiskUnfit("the disk has no GUID partition table, or a damaged one")
    if not 0 < count <= MAX_ENTRIES or entry_size != _ENTRY.size or table * SECTOR + count * entry_size > device.size:
        raise DiskUnfit(f"{count} entries of {entry_size} bytes are no partition table that is read here")
    data = device.read(table * SECTOR, count * entry_size)
    if binascii.crc32(data) != entries_crc:
        raise DiskUnfit("the entries of the partition table are damaged")
    return _ENTRY.iter_unpack(data)
