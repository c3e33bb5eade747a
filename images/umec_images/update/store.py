"""The variable store of a virtual machine's firmware, in a file: for machines that are switched off.

EDK II, Include/Guid/VariableFormat.h: a header, and variables one behind the other; what is behind them is erased.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from umec_images.nodeimage.variables import VARIABLE, VARIABLE_ADDED, VARIABLE_START, store_room
from umec_images.update.errors import VariablesUnusable
from umec_images.update.firmware import ATTRIBUTES, GLOBAL

__all__ = ["StoreVariables"]

MAX_STORE: Final = 16 * 1024 * 1024
"""Bytes of a firmware's flash; OVMF's has 540 KiB for variables."""


@dataclass(frozen=True, slots=True)
class StoreVariables:
    """A file of OVMF's variables; it is replaced whole at each change."""

    path: Path

    def write(self, name: str, value: bytes) -> None:
        """Set one. Raises VariablesUnusable."""
        encoded = name.encode("utf-16-le") + b"\0\0"
        sizes = (len(encoded), len(value))
        head = VARIABLE.pack(VARIABLE_START, VARIABLE_ADDED, ATTRIBUTES, 0, bytes(16), 0, *sizes, GLOBAL.bytes_le)
        self._replace(encoded, head + encoded + value)

    def remove(self, name: str) -> None:
        """Delete one, if it is there. Raises VariablesUnusable."""
        self._replace(name.encode("utf-16-le") + b"\0\0", b"")

    def _replace(self, name: bytes, variable: bytes) -> None:
        try:
            with self.path.open("rb") as file:
                store = file.read(MAX_STORE + 1)
            start, end = store_room(store)
            kept = [each for each in _variables(store, start, end) if not _is(each, name)]
        except (OSError, struct.error, ValueError) as error:
            raise VariablesUnusable(f"{self.path} is no variable store of OVMF: {error}") from error
        if not end <= len(store) <= MAX_STORE:
            raise VariablesUnusable(f"{self.path} is a variable store that was cut, or has more than {MAX_STORE} bytes")
        added = b"".join(_padded(each) for each in [*kept, variable])
        if len(added) > end - start:
            raise VariablesUnusable(f"{self.path} has no room for another variable")
        fresh = self.path.with_name(f".{self.path.name}.new")
        with fresh.open("wb") as file:
            file.write(store[:start] + added.ljust(end - start, b"\xff") + store[end:])
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)


def _variables(store: bytes, start: int, end: int) -> Iterator[bytes]:
    """Return the variables that are not deleted."""
    place = start
    while place + VARIABLE.size <= end and store[place : place + 2] == struct.pack("<H", VARIABLE_START):
        _, state, _, _, _, _, name_size, size, _ = VARIABLE.unpack_from(store, place)
        length = VARIABLE.size + name_size + size
        if state == VARIABLE_ADDED:
            yield store[place : place + length]
        place += length + -length % 4


def _is(variable: bytes, name: bytes) -> bool:
    return (
        variable[VARIABLE.size - 16 : VARIABLE.size] == GLOBAL.bytes_le
        and variable[VARIABLE.size :][: len(name)] == name
    )


def _padded(variable: bytes) -> bytes:
    return variable + b"\xff" * (-len(variable) % 4)
