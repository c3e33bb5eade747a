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

from umec_images.update.errors import DiskBusy, DiskUnfit, WriteFailed

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
            try:
                part = os.pread(self.descriptor, size - len(parts), offset + len(parts))
            except OSError as error:
                raise DiskUnfit(f"the disk cannot be read at {offset + len(parts)}: {error.strerror}") from error
            if not part:
                raise DiskUnfit(f"the disk ends at {offset + len(parts)}")
            parts += part
        return bytes(parts)

    def write(self, offset: int, data: bytes) -> None:
        if offset + len(data) > self.size:
            raise DiskUnfit(f"the disk ends at {self.size}")
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self.descriptor, memoryview(data)[done:], offset + done)
        except OSError as error:
            raise WriteFailed(f"the disk cannot be written at {offset + done}: {error.strerror}") from error

    def flush(self) -> None:
        try:
            os.fsync(self.descriptor)
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise WriteFailed(f"the disk does not keep what was written: {error.strerror}") from error


@contextmanager
def open_disk(path: Path, *, writing: bool) -> Iterator[Device]:
    """Open a disk image or a block device, for one at a time who writes.

    Raises DiskBusy, DiskUnfit; what is done with it raises DiskUnfit where it cannot be read, and WriteFailed.
    """
    try:
        descriptor = os.open(path, (os.O_RDWR if writing else os.O_RDONLY) | os.O_CLOEXEC)
    except OSError as error:
        raise DiskUnfit(f"{path} cannot be opened: {error.strerror}") from error
    try:
        yield _File(descriptor, _locked(descriptor, path, writing=writing))
    finally:
        os.close(descriptor)


def _locked(descriptor: int, path: Path, *, writing: bool) -> int:
    """Lock it, and return its size."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if writing else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        return os.lseek(descriptor, 0, os.SEEK_END)
    except BlockingIOError as error:
        raise DiskBusy(f"another update of {path} goes on") from error
    except OSError as error:
        raise DiskUnfit(f"{path} is no disk: {error.strerror}") from error
