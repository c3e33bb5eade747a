"""The EFI partition of a node, changed so that each state in between is one that a firmware starts from (FAT32).

Two kernel images lie in one folder: what is started, and the other one. What is not referenced is written first: data
and table entries of clusters that no file has. A file appears, disappears, or changes its name with another by one
write of one sector, for both entries are in the same one. No sector of the table is written that holds an entry of a
file that stays (`umec_images.nodeimage.fat` gives each file sectors of its own there).
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from umec_images.update.device import SECTOR, Area
from umec_images.update.errors import DiskUnfit, NoRoom

__all__ = ["Esp", "File", "open_esp"]

MAX_FILES: Final = 256
"""Files and folders; a node's EFI partition has eight."""
MAX_DEPTH: Final = 8
FIRST_CLUSTER: Final = 2
GROUP: Final = SECTOR // 4
"""Clusters whose entries are in one sector of the table."""
DATE: Final = (2020 - 1980) << 9 | 1 << 5 | 1
"""2020-01-01: of every entry, so that a disk tells no more than its files."""

_PARAMETERS: Final = struct.Struct("<11xHBHB19xI4xI")
_ENTRY: Final = struct.Struct("<11sBBBHHHHHHHI")
_ARCHIVE: Final = 0x20
_FOLDER: Final = 0x10
_VOLUME: Final = 0x08
_LONG_NAME: Final = 0x0F
_FREE: Final = 0xE5
_END: Final = 0x0FFF_FFFF
_LEAST_END: Final = 0x0FFF_FFF8
_UNKNOWN: Final = b"\xff" * 8
"""For the number of free clusters, and where to look for one."""
_NUMBER: Final = 0x0FFF_FFFF
"""The bits of a table entry that count."""


@dataclass(frozen=True, slots=True)
class File:
    """A file: its clusters, and where its entry is (bytes from the start of the partition)."""

    size: int
    clusters: tuple[int, ...]
    entry: int


@dataclass(frozen=True, slots=True)
class Esp:
    """An EFI partition as it was when it was opened: open it again after each change."""

    area: Area
    cluster: int
    """Bytes of one."""
    table_start: int
    table_size: int
    data_start: int
    count: int
    """Of clusters."""
    table: bytes
    files: Mapping[str, File]
    folders: Mapping[str, tuple[int, ...]]
    """Their clusters; the top folder's path is empty."""

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raises DiskUnfit where there is none."""
        file = self._file(path)
        return self.fetch(file.clusters)[: file.size]

    def fetch(self, clusters: tuple[int, ...]) -> bytes:
        """Return what is in these clusters."""
        return b"".join(self.area.read(self._place(first), count * self.cluster) for first, count in _runs(clusters))

    def overwrite(self, path: str, sector: bytes) -> None:
        """Write a file of one sector in its place."""
        file = self._file(path)
        if file.size != SECTOR:
            raise DiskUnfit(f"{path} is not one sector")
        self.area.write(self._place(file.clusters[0]), sector)

    def swap(self, path: str, other: str) -> None:
        """Let two files of a folder change their names: one write of one sector."""
        first, second = self._file(path), self._file(other)
        sector, at, there = self._same_sector(first.entry, second.entry)
        entries = sector[at : at + _ENTRY.size], sector[there : there + _ENTRY.size]
        sector[at : at + _ENTRY.size] = entries[0][:11] + entries[1][11:]
        sector[there : there + _ENTRY.size] = entries[1][:11] + entries[0][11:]
        self.area.write(first.entry - at, bytes(sector))

    def remove(self, path: str) -> None:
        """Take a file out of its folder: one write of one sector. Its clusters are free for whoever writes next."""
        entry = self._file(path).entry
        sector, at, _ = self._same_sector(entry, entry)
        sector[at] = _FREE
        self.area.write(entry - at, bytes(sector))

    def room(self, without: str) -> int:
        """Return how many bytes can be stored when the file `without` is gone."""
        return len(self._free_groups(without)) * GROUP * self.cluster

    def store(self, content: bytes) -> tuple[int, ...]:
        """Write a content into clusters that no file has, and return them; it is no file yet. Raises NoRoom."""
        groups = self._free_groups("")
        needed = -(-len(content) // self.cluster)
        clusters = [group * GROUP + place for group in groups[: -(-needed // GROUP)] for place in range(GROUP)][:needed]
        if len(clusters) < needed:
            raise NoRoom(f"{len(content)} bytes do not fit into the {self.room('')} that are free on the EFI partition")
        position = 0
        for first, count in _runs(clusters):
            self.area.write(self._place(first), _padded(content[position : position + count * self.cluster]))
            position += count * self.cluster
        table = bytearray(self.table)
        for group in groups:
            table[group * SECTOR : (group + 1) * SECTOR] = bytes(SECTOR)
        for cluster, following in zip(clusters, [*clusters[1:], _END], strict=True):
            struct.pack_into("<I", table, 4 * cluster, following)
        for start in (self.table_start, self.table_start + self.table_size):
            self._write_table(start, table, groups)
        self._forget_count()
        return tuple(clusters)

    def add(self, path: str, beside: str, clusters: tuple[int, ...], size: int) -> None:
        """Make stored clusters a file in the folder, and in the sector, of another file: one write of one sector."""
        entry = self._file(beside).entry
        sector, at, _ = self._same_sector(entry, entry)
        free = next((place for place in range(0, SECTOR, _ENTRY.size) if sector[place] in {0, _FREE}), None)
        if path in self.files or free is None:
            raise DiskUnfit(f"there is no room for {path} beside {beside}")
        stem, _, extension = path.rpartition("/")[2].partition(".")
        name = stem.ljust(8).encode() + extension.ljust(3).encode()
        high, low = clusters[0] >> 16, clusters[0] & 0xFFFF
        _ENTRY.pack_into(sector, free, name, _ARCHIVE, 0, 0, 0, DATE, DATE, high, 0, DATE, low, size)
        self.area.write(entry - at, bytes(sector))

    def _file(self, path: str) -> File:
        file = self.files.get(path)
        if file is None:
            raise DiskUnfit(
                f"the EFI partition has no {path}", advice="put an image on this disk that is made for updates"
            )
        return file

    def _same_sector(self, entry: int, other: int) -> tuple[bytearray, int, int]:
        start = entry - entry % SECTOR
        if other - other % SECTOR != start:
            raise DiskUnfit("both kernel images have to be in one sector of their folder")
        return bytearray(self.area.read(start, SECTOR)), entry - start, other - start

    def _place(self, cluster: int) -> int:
        return self.data_start + (cluster - FIRST_CLUSTER) * self.cluster

    def _free_groups(self, without: str) -> list[int]:
        """Return the sectors of the table that hold no entry of a file, a folder, or of no cluster."""
        kept = {0} | {number // GROUP for clusters in self.folders.values() for number in clusters}
        kept |= {number // GROUP for name, file in self.files.items() if name != without for number in file.clusters}
        return [group for group in range((self.count + FIRST_CLUSTER) // GROUP) if group not in kept]

    def _forget_count(self) -> None:
        """Let the hint how many clusters are free say that nobody knows."""
        info = self.area.read(SECTOR, SECTOR)
        if info[:4] == b"RRaA":
            self.area.write(SECTOR, info[:488] + _UNKNOWN + info[496:])

    def _write_table(self, start: int, table: bytearray, groups: list[int]) -> None:
        present = self.area.read(start, self.table_size)
        changed = [each for each in groups if _entries_of(present, each) != _entries_of(table, each)]
        for first, count in _runs(changed):
            self.area.write(start + first * SECTOR, bytes(table[first * SECTOR : (first + count) * SECTOR]))


def open_esp(area: Area) -> Esp:
    """Read what files there are. Raises DiskUnfit."""
    boot = area.read(0, SECTOR)
    sector, sectors, reserved, tables, table_sectors, root = _PARAMETERS.unpack_from(boot, 0)
    cluster, start, length = sector * sectors, reserved * sector, table_sectors * sector
    if boot[510:512] != b"\x55\xaa" or sector != SECTOR or not sectors or tables != 2:
        raise DiskUnfit("the EFI partition has no FAT32 file system that is changed here")
    data = start + tables * length
    count = min((area.size - data) // cluster, length // 4 - FIRST_CLUSTER)
    table = area.read(start, length)
    reader = _Reader(area, cluster, data, count, table)
    files: dict[str, File] = {}
    folders: dict[str, tuple[int, ...]] = {}
    reader.folder("", root, MAX_DEPTH, files, folders)
    return Esp(area, cluster, start, length, data, count, table, files, folders)


@dataclass(frozen=True, slots=True)
class _Reader:
    area: Area
    cluster: int
    data: int
    count: int
    table: bytes

    def folder(
        self, path: str, first: int, depth: int, files: dict[str, File], folders: dict[str, tuple[int, ...]]
    ) -> None:
        if depth == 0:
            raise DiskUnfit("the EFI partition has folders in folders without an end")
        folders[path] = self._chain(first)
        for place, raw in self._entries(folders[path]):
            name, attributes, _, _, _, _, _, high, _, _, low, size = _ENTRY.unpack(raw)
            if name[0] in {_FREE, ord(".")} or attributes == _LONG_NAME or attributes & _VOLUME:
                continue
            if len(files) + len(folders) >= MAX_FILES:
                raise DiskUnfit(f"the EFI partition has more than {MAX_FILES} files")
            full = f"{path}/{_name(name)}".removeprefix("/")
            if full in files or full in folders:
                raise DiskUnfit(f"the EFI partition has two files {full}")
            if attributes & _FOLDER:
                self.folder(full, high << 16 | low, depth - 1, files, folders)
            else:
                clusters = self._chain(high << 16 | low) if size else ()
                if size > len(clusters) * self.cluster:
                    raise DiskUnfit(f"{full} is longer than its clusters")
                files[full] = File(size, clusters, place)

    def _entries(self, clusters: tuple[int, ...]) -> Iterator[tuple[int, bytes]]:
        for number in clusters:
            start = self.data + (number - FIRST_CLUSTER) * self.cluster
            content = self.area.read(start, self.cluster)
            for place in range(0, self.cluster, _ENTRY.size):
                if content[place] == 0:
                    return
                yield start + place, content[place : place + _ENTRY.size]

    def _chain(self, first: int) -> tuple[int, ...]:
        clusters: list[int] = []
        number = first
        while number < _LEAST_END:
            if not FIRST_CLUSTER <= number < self.count + FIRST_CLUSTER or len(clusters) >= self.count:
                raise DiskUnfit("a chain of clusters of the EFI partition leads nowhere")
            clusters.append(number)
            number = struct.unpack_from("<I", self.table, 4 * number)[0] & _NUMBER
        return tuple(clusters)


def _runs(numbers: "tuple[int, ...] | list[int]") -> Iterator[tuple[int, int]]:
    """Return the runs of following numbers: the first of each, and how many there are."""
    begin = 0
    for place in range(1, len(numbers) + 1):
        if place == len(numbers) or numbers[place] != numbers[place - 1] + 1:
            yield numbers[begin], place - begin
            begin = place


def _entries_of(table: bytes | bytearray, group: int) -> bytes:
    return bytes(table[group * SECTOR : (group + 1) * SECTOR])


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % SECTOR)


def _name(raw: bytes) -> str:
    stem, extension = (part.decode("latin-1").rstrip() for part in (raw[:8], raw[8:]))
    return f"{stem}.{extension}" if extension else stem
