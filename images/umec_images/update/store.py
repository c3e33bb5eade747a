"""The variable store of a virtual machine's firmware, in a file: for machines that are switched off.

EDK II, Include/Guid/VariableFormat.h: a header, and variables one behind the other; what is behind them is erased.
"""

import os
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from umec_images.update.errors import VariablesUnusable
from umec_images.update.firmware import ATTRIBUTES, GLOBAL

__all__ = ["StoreVariables"]

MAX_STORE: Final = 16 * 1024 * 1024
"""Bytes of a firmware's flash; OVMF's has 540 KiB for variables."""
_AUTHENTICATED: Final = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792").bytes_le
_VOLUME_HEADER: Final = 48
_STORE: Final = struct.Struct("<16sI8x")
_VARIABLE: Final = struct.Struct("<HBxIQ16sIII16s")
_BEGIN: Final = 0x55AA
_ADDED: Final = 0x3F


@dataclass(frozen=True, slots=True)
class StoreVariables:
    """A file of OVMF's variables; it is replaced whole at each change."""

    path: Path

    def write(self, name: str, value: bytes) -> None:
        """Set one. Raises VariablesUnusable."""
        encoded = name.encode("utf-16-le") + b"\0\0"
        sizes = (len(encoded), len(value))
        head = _VARIABLE.pack(_BEGIN, _ADDED, ATTRIBUTES, 0, bytes(16), 0, *sizes, GLOBAL.bytes_le)
        self._replace(encoded, head + encoded + value)

    def remove(self, name: str) -> None:
        """Delete one, if it is there. Raises VariablesUnusable."""
        self._replace(name.encode("utf-16-le") + b"\0\0", b"")

    def _replace(self, name: bytes, variable: bytes) -> None:
        try:
            store = self.path.read_bytes()
            start, end = _room(store)
            kept = [each for each in _variables(store, start, end) if not _is(each, name)]
        except (OSError, struct.error) as error:
            raise VariablesUnusable(f"{self.path} is no variable store of OVMF: {error}") from error
        added = b"".join(_padded(each) for each in [*kept, variable])
        if len(added) > end - start:
            raise VariablesUnusable(f"{self.path} has no room for another variable")
        fresh = self.path.with_name(f".{self.path.name}.new")
        with fresh.open("wb") as file:
            file.write(store[:start] + added.ljust(end - start, b"\xff") + store[end:])
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)


def _room(store: bytes) -> tuple[int, int]:
    """Where variables may stand."""
    (header,) = struct.unpack_from("<H", store, _VOLUME_HEADER)
    magic, size = _STORE.unpack_from(store, header)
    if store[40:44] != b"_FVH" or magic != _AUTHENTICATED or not header + size <= len(store) <= MAX_STORE:
        raise struct.error("its headers say something else")
    return header + _STORE.size, header + size


def _variables(store: bytes, start: int, end: int) -> Iterator[bytes]:
    """Return the variables that are not deleted."""
    place = start
    while place + _VARIABLE.size <= end and store[place : place + 2] == struct.pack("<H", _BEGIN):
        _, state, _, _, _, _, name_size, size, _ = _VARIABLE.unpack_from(store, place)
        length = _VARIABLE.size + name_size + size
        if state == _ADDED:
            yield store[place : place + length]
        place += length + -length % 4


def _is(variable: bytes, name: bytes) -> bool:
    return (
        variable[_VARIABLE.size - 16 : _VARIABLE.size] == GLOBAL.bytes_le
        and variable[_VARIABLE.size :][: len(name)] == name
    )


def _padded(variable: bytes) -> bytes:
    return variable + b"\xff" * (-len(variable) % 4)
