"""A disk as bytes: reads, writes, and a barrier between them.

A write may be lost or torn between two sectors until the next `flush`; a sector is written whole or not at all. That is
what every disk promises (NVMe: atomic write unit of a logical block), and all that is relied on here.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from umec_images.update.errors import DiskBusy, DiskUnfit

__all__ = ["SECTOR", "Area", "Device", "open_disk"]

SECTOR: Final = 512


class Device(Protocol):
    """Bytes at offsets."""

    @property
    def size(self) -> int:
        """Bytes of it."""

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly so many bytes."""

    def write(self, offset: int, data: bytes) -> None:
        """Write them; they are safe after the next flush."""

    def flush(self) -> None:
        """Return when all that was written is safe; what is read after that comes from the disk itself."""


@dataclass(frozen=True, slots=True)
class Area:
    """A partition of a device, with offsets of its own."""

    device: Device
    start: int
    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly so many bytes of it. Raises DiskUnfit beyond its end."""
        self._check(offset, size)
        return self.device.read(self.start + offset, size)

    def write(self, offset: int, data: bytes) -> None:
        """Write into it. Raises DiskUnfit beyond its end."""
        self._check(offset, len(data))
        self.device.write(self.start + offset, data)

    def _check(self, offset: int, size: int) -> None:
        if not 0 <= offset <= offset + size <= self.size:
            raise DiskUnfit(f"{size} bytes at {offset} are not within a partition of {self.size}")


@dataclass(frozen=True, slots=True)
class _File:
    """A disk image or a block device."""

    descriptor: int
    size: int

    def read(self, offset: int, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = os.pread(self.descriptor, size - len(parts), offset + len(parts))
            if not part:
                raise DiskUnfit(f"the disk ends at {offset + len(parts)}")
            parts += part
        return bytes(parts)

    def write(self, offset: int, data: bytes) -> None:
        if offset + len(data) > self.size:
            raise DiskUnfit(f"the disk ends at {self.size}")
        done = 0
        while done < len(data):
            done += os.pwrite(self.descriptor, memoryview(data)[done:], offset + done)

    def flush(self) -> None:
        os.fsync(self.descriptor)
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def open_disk(path: Path, *, writing: bool) -> Iterator[Device]:
    """Open a disk image or a block device, for one at a time who writes. Raises DiskBusy, OSError."""
    descriptor = os.open(path, (os.O_RDWR if writing else os.O_RDONLY) | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if writing else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DiskBusy(f"another update of {path} goes on") from error
        yield _File(descriptor, os.lseek(descriptor, 0, os.SEEK_END))
    finally:
        os.close(descriptor)
