"""Who the node is, kept outside of its encrypted data: where that stays closed, it still attests, and says by what.

The keys in it are wrapped by the TPM, and worth nothing elsewhere. Whoever holds the disk may change or remove it: then
the node is silent, or is refused, as with any other disk of theirs.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from umec_attest.agent.state import STATE_FILE

__all__ = ["Keepsake"]

SIZE: Final = 128 * 1024
"""Bytes of the area before the encrypted data that `guest/unlock.sh` lays aside for it."""


class Keepsake:
    """A copy of a node's state in an area of a disk, written anew when the state has changed."""

    def __init__(self, area: Path, state: Path) -> None:
        self._area, self._file = area, state / STATE_FILE
        self._kept: bytes | None = None

    def heard(self, _line: Mapping[str, object]) -> None:
        """Look whether there is something new, at whatever the agent reports."""
        self.keep()

    def keep(self) -> bool:
        """Copy the state, and tell whether that was necessary; without an area or a state there is nothing to do."""
        try:
            state = self._file.read_bytes()
            if state == self._kept or len(state) >= SIZE:
                return False
            with self._area.open("r+b") as area:
                before = area.read(SIZE)
                if before.rstrip(b"\0") != state:
                    area.seek(0)
                    area.write(state.ljust(len(before), b"\0"))
                    area.flush()
                    os.fsync(area.fileno())
                self._kept = state
                return before.rstrip(b"\0") != state
        except OSError:
            return False  # a full or broken disk is told by whoever needs it
