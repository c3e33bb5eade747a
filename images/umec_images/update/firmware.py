"""Asking a firmware to start another image, once (UEFI 2.10 §3.3: Boot####, BootNext).

BootNext is deleted by the firmware before it does what it says: whatever becomes of that start, the next one is an
ordinary one. The option is in no boot order, so that it is measured nowhere, and nothing is started by it unasked.
"""

import contextlib
import fcntl
import os
import struct
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from umec_images.update.device import SECTOR
from umec_images.update.errors import VariablesUnusable
from umec_images.update.layout import Partition

__all__ = ["ATTRIBUTES", "GLOBAL", "SECURITY_DATABASE", "EfiVariables", "Variables", "ask_no_more", "ask_once"]

GLOBAL: Final = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
SECURITY_DATABASE: Final = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
ATTRIBUTES: Final = 0x7
"""Kept, and for programs before and after the start."""
NEXT: Final = "BootNext"
OPTION: Final = 0x4D45
"""The number of our boot option; a firmware counts its own from zero."""
_DESCRIPTION: Final = "umec: the other image"
_ACTIVE: Final = 1
_DISK: Final = struct.Struct("<BBHIQQ16sBB")
"""Device path of a partition (§10.3.5.1): by the identifier of a GUID partition table."""
_END_PATH: Final = b"\x7f\xff\x04\x00"
MAX_VARIABLE: Final = 64 * 1024
"""Bytes of a variable that is read: a db with some dozens of certificates."""
_GET_FLAGS: Final = 0x8008_6601
_SET_FLAGS: Final = 0x4008_6602
_IMMUTABLE: Final = 0x10
"""FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL: efivarfs sets it on what the kernel does not know as harmless."""


class Variables(Protocol):
    """The global variables of a firmware; each is written whole or not at all (§8.2)."""

    def write(self, name: str, value: bytes) -> None:
        """Set one. Raises VariablesUnusable."""

    def remove(self, name: str) -> None:
        """Delete one, if it is there. Raises VariablesUnusable."""


def ask_once(variables: Variables, esp: Partition, path: str) -> None:
    """Have the firmware start a file of an EFI partition, the next time it starts, and that time only."""
    variables.write(f"Boot{OPTION:04X}", _load_option(esp, path))
    variables.write(NEXT, struct.pack("<H", OPTION))


def ask_no_more(variables: Variables) -> None:
    """Take back what was asked."""
    variables.remove(NEXT)


def _load_option(esp: Partition, path: str) -> bytes:
    start, size = esp.area.start // SECTOR, esp.area.size // SECTOR
    disk = _DISK.pack(4, 1, _DISK.size, esp.number, start, size, esp.identity.bytes_le, 2, 2)
    name = ("\\" + path.replace("/", "\\")).encode("utf-16-le") + b"\0\0"
    file = struct.pack("<BBH", 4, 4, 4 + len(name)) + name
    places = disk + file + _END_PATH
    return struct.pack("<IH", _ACTIVE, len(places)) + _DESCRIPTION.encode("utf-16-le") + b"\0\0" + places


@dataclass(frozen=True, slots=True)
class EfiVariables:
    """The variables of this machine's own firmware, as Linux shows them (efivarfs)."""

    folder: Path = Path("/sys/firmware/efi/efivars")

    def read(self, name: str, vendor: uuid.UUID = GLOBAL) -> bytes:
        """Return the value of one, without its attributes. Raises VariablesUnusable."""
        path = self._path(name, vendor)
        try:
            with path.open("rb") as file:
                content = file.read(MAX_VARIABLE + 1)
        except OSError as error:
            raise VariablesUnusable(f"{path}: {error.strerror}") from error
        if not 4 <= len(content) <= MAX_VARIABLE:
            raise VariablesUnusable(f"{path} is no variable, or has more than {MAX_VARIABLE} bytes")
        return content[4:]

    def write(self, name: str, value: bytes) -> None:
        """Set one: the kernel takes it from one write. Raises VariablesUnusable."""
        try:
            _let_change(self._path(name))
            descriptor = os.open(self._path(name), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                file.write(struct.pack("<I", ATTRIBUTES) + value)
        except OSError as error:
            raise VariablesUnusable(f"{self._path(name)}: {error.strerror}") from error

    def remove(self, name: str) -> None:
        """Delete one, if it is there. Raises VariablesUnusable."""
        try:
            _let_change(self._path(name))
            self._path(name).unlink(missing_ok=True)
        except OSError as error:
            raise VariablesUnusable(f"{self._path(name)}: {error.strerror}") from error

    def _path(self, name: str, vendor: uuid.UUID = GLOBAL) -> Path:
        return self.folder / f"{name}-{vendor}"


def _let_change(path: Path) -> None:
    """Take the immutable flag from a file that is there; a file system without flags has none to take."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        with contextlib.suppress(OSError):
            (flags,) = struct.unpack("<L", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8))[:4])
            if flags & _IMMUTABLE:
                fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("<Q", flags & ~_IMMUTABLE))
    finally:
        os.close(descriptor)
