"""A FAT32 file system with a few files, written in one pass (Microsoft's FAT specification 1.03).

It depends on its files and its size alone: one date, a serial number of its content, short names only (8.3), every file
in one run of clusters, and with sectors of the table of its own: another can take its place, and no entry of one that
stays is ever written (`umec_images.update.esp`).
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Final

from umec_images.nodeimage.errors import ContentRefused, DiskTooSmall

__all__ = ["SECTOR", "file_system"]

SECTOR: Final = 512
CLUSTER: Final = SECTOR
"""Bytes; so small that a file system of 34 MiB has as many clusters as FAT32 demands."""
RESERVED: Final = 32
"""Sectors before the first table."""
LEAST_CLUSTERS: Final = 65525
TABLES: Final = 2
FIRST_CLUSTER: Final = 2
GROUP: Final = SECTOR // 4
"""Clusters whose entries are in one sector of the table."""
LABEL: Final = b"UMEC       "
DATE: Final = (2020 - 1980) << 9 | 1 << 5 | 1
"""2020-01-01, of every entry."""

_END: Final = 0x0FFF_FFFF
_ENTRY: Final = struct.Struct("<11sBBBHHHHHHHI")
_FOLDER: Final = 0x10
_ARCHIVE: Final = 0x20
_VOLUME: Final = 0x08
_LEGAL: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def file_system(files: Mapping[str, bytes], size: int) -> Iterable[tuple[int, bytes]]:
    """Return the pieces of a file system of `size` bytes that are not zero, each with its offset.

    `files` maps paths like EFI/BOOT/BOOTX64.EFI to contents. Raises DiskTooSmall, ContentRefused.
    """
    sectors = size // SECTOR
    table_sectors = -(-(sectors - RESERVED + 2 * FIRST_CLUSTER) * 4 // (SECTOR + 2 * 4))
    data_start = RESERVED + TABLES * table_sectors
    clusters = sectors - data_start
    if clusters < LEAST_CLUSTERS:
        raise DiskTooSmall(f"{size} bytes are too few for a FAT32 file system")
    chunks = _lay_out(files)
    end = max(place + _clusters(chunk) for place, chunk in chunks)
    if end - FIRST_CLUSTER > clusters:
        raise DiskTooSmall(f"{end * CLUSTER} bytes do not fit into the {clusters * CLUSTER} of the EFI partition")
    table = [0x0FFF_FFF8, _END, *[0] * (end - FIRST_CLUSTER)]
    for first, chunk in chunks:
        last = first + _clusters(chunk) - 1
        table[first : last + 1] = [*range(first + 1, last + 1), _END][: _clusters(chunk)]
    table_bytes = struct.pack(f"<{len(table)}I", *table)
    serial = hashlib.sha256(b"".join(hashlib.sha256(chunk).digest() for _, chunk in chunks)).digest()[:4]
    boot = _boot_sector(sectors, table_sectors, serial)
    used = sum(_clusters(chunk) for _, chunk in chunks)
    info = _info_sector(clusters - used, end)
    pieces = [(0, boot), (SECTOR, info), (6 * SECTOR, boot), (7 * SECTOR, info)]
    pieces += [((RESERVED + number * table_sectors) * SECTOR, table_bytes) for number in range(TABLES)]
    pieces += [((data_start + place - FIRST_CLUSTER) * SECTOR, chunk) for place, chunk in chunks]
    return pieces


def _lay_out(files: Mapping[str, bytes]) -> list[tuple[int, bytes]]:
    """Return the folders, the topmost first, and the files, each with its first cluster."""
    paths = {PurePosixPath(name): content for name, content in files.items()}
    folders = sorted({parent for path in paths for parent in path.parents}, key=lambda path: (len(path.parts), path))
    folders = folders or [PurePosixPath()]
    places = {folder: FIRST_CLUSTER + number for number, folder in enumerate(folders)}  # a folder has one cluster
    cluster = FIRST_CLUSTER + len(folders)
    for path in sorted(paths):
        places[path] = cluster = -(-cluster // GROUP) * GROUP
        cluster += _clusters(paths[path])
    found = [(places[each], _folder(each, folders, paths, places)) for each in folders]
    return found + [(places[path], paths[path]) for path in sorted(paths)]


def _folder(
    folder: PurePosixPath,
    folders: Iterable[PurePosixPath],
    files: Mapping[PurePosixPath, bytes],
    places: Mapping[PurePosixPath, int],
) -> bytes:
    top = PurePosixPath()
    if folder == top:
        entries = [_entry(LABEL, _VOLUME, 0, 0)]
    else:
        parent = 0 if folder.parent == top else places[folder.parent]
        entries = [_entry(b".          ", _FOLDER, places[folder], 0), _entry(b"..         ", _FOLDER, parent, 0)]
    entries += [
        _entry(_short(each), _FOLDER, places[each], 0) for each in folders if each != top and each.parent == folder
    ]
    entries += [
        _entry(_short(path), _ARCHIVE, places[path] if files[path] else 0, len(files[path]))
        for path in sorted(files)
        if path.parent == folder
    ]
    data = b"".join(entries)
    if len(data) > CLUSTER:
        raise ContentRefused(f"the folder {folder} of the EFI partition has too many files")
    return data + bytes(CLUSTER - len(data))


def _entry(name: bytes, attributes: int, cluster: int, size: int) -> bytes:
    high, low = cluster >> 16, cluster & 0xFFFF
    return _ENTRY.pack(name, attributes, 0, 0, 0, DATE, DATE, high, 0, DATE, low, size)


def _short(path: PurePosixPath) -> bytes:
    stem, _, extension = path.name.partition(".")
    if not 1 <= len(stem) <= 8 or len(extension) > 3 or not set(stem + extension) <= _LEGAL:
        raise ContentRefused(f"{path} is no short name (8.3, capitals)")
    return stem.ljust(8).encode() + extension.ljust(3).encode()


def _clusters(data: bytes) -> int:
    return -(-len(data) // CLUSTER)


def _boot_sector(sectors: int, table_sectors: int, serial: bytes) -> bytes:
    head = b"\xeb\x58\x90" + b"UMEC    "
    layout = struct.pack(
        "<HBHBHHBHHHII", SECTOR, CLUSTER // SECTOR, RESERVED, TABLES, 0, 0, 0xF8, 0, 32, 64, 0, sectors
    )
    extended = struct.pack("<IHHIHH12x", table_sectors, 0, 0, FIRST_CLUSTER, 1, 6)
    tail = struct.pack("<BBB4s11s8s", 0x80, 0, 0x29, serial, LABEL, b"FAT32   ")
    sector = head + layout + extended + tail
    return sector + bytes(SECTOR - 2 - len(sector)) + b"\x55\xaa"


def _info_sector(free: int, following: int) -> bytes:
    return struct.pack("<4s480x4sII12xI", b"RRaA", b"rrAa", free, following, 0xAA55_0000)
