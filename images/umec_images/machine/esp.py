"""The files of an EFI partition: a FAT32 file system with short names, read and written whole.

What an attacker with a disk in hand does with any computer; `umec_images.nodeimage.fat` writes.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from umec_images.machine.errors import DiskUnreadable

__all__ = ["read_files"]

MAX_FILES: Final = 256
"""Files and folders; an EFI partition has a handful."""
MAX_DEPTH: Final = 8
_PARAMETERS: Final = struct.Struct("<11xHBHB19xI4xI")
"""Bytes a sector, sectors a cluster, reserved sectors, tables, sectors a table, cluster of the root folder."""
_ENTRY: Final = struct.Struct("<11sB8xH4xHI")
_LONG_NAME: Final = 0x0F
_FOLDER: Final = 0x10
_VOLUME: Final = 0x08
_FREE: Final = 0xE5
_END: Final = 0x0FFF_FFF8


@dataclass(frozen=True, slots=True)
class _Volume:
    data: bytes
    cluster: int
    first: int
    """Offset of cluster 2."""
    table: memoryview

    def chain(self, cluster: int) -> bytes:
        """Return the content of a chain of clusters; each is visited once."""
        content, seen = bytearray(), set[int]()
        while cluster < _END:
            offset = self.first + (cluster - 2) * self.cluster
            if cluster < 2 or cluster in seen or offset + self.cluster > len(self.data):
                raise DiskUnreadable("a chain of clusters of the EFI partition leads nowhere")
            seen.add(cluster)
            content += self.data[offset : offset + self.cluster]
            cluster = struct.unpack_from("<I", self.table, 4 * cluster)[0] & 0x0FFF_FFFF
        return bytes(content)


def read_files(partition: bytes) -> Mapping[str, bytes]:
    """Return the files by their paths (EFI/BOOT/BOOTX64.EFI). Raises DiskUnreadable."""
    try:
        volume, root = _open(partition)
        return dict(_files(volume, root, "", MAX_DEPTH, [MAX_FILES]))
    except struct.error as error:
        raise DiskUnreadable(f"the EFI partition ends within a structure: {error}") from error


def _open(partition: bytes) -> tuple[_Volume, int]:
    sector, sectors, reserved, tables, table_sectors, root = _PARAMETERS.unpack_from(partition, 0)
    if partition[510:512] != b"\x55\xaa" or not sectors:
        raise DiskUnreadable("the EFI partition has no FAT32 file system")
    begin, length = reserved * sector, table_sectors * sector
    table = memoryview(partition)[begin : begin + length]
    return _Volume(partition, sector * sectors, begin + tables * length, table), root


def _files(volume: _Volume, cluster: int, path: str, depth: int, left: list[int]) -> Iterator[tuple[str, bytes]]:
    if depth == 0:
        raise DiskUnreadable("the EFI partition has folders in folders without an end")
    folder = volume.chain(cluster)
    for raw, attributes, high, low, size in _ENTRY.iter_unpack(folder[: len(folder) // _ENTRY.size * _ENTRY.size]):
        if raw[0] == 0:
            return
        if raw[0] in (_FREE, ord(".")) or attributes == _LONG_NAME or attributes & _VOLUME:
            continue
        left[0] -= 1
        if left[0] < 0:
            raise DiskUnreadable(f"the EFI partition has more than {MAX_FILES} files")
        start, name = high << 16 | low, path + _name(raw)
        if attributes & _FOLDER:
            yield from _files(volume, start, f"{name}/", depth - 1, left)
        else:
            content = volume.chain(start) if size else b""
            if size > len(content):
                raise DiskUnreadable(f"{name} is longer than its clusters")
            yield name, content[:size]


def _name(raw: bytes) -> str:
    stem, extension = (part.decode("latin-1").rstrip() for part in (raw[:8], raw[8:]))
    return f"{stem}.{extension}" if extension else stem
