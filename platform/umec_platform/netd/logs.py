"""What instances write, kept in bounded files: a newer and an older half for each, so that the end is always there."""

import contextlib
import os
import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import Final

__all__ = ["MAX_TEXT", "InstanceLog", "LogBook"]

HALF: Final = 512 * 1024
"""Octets of one of the two files of an instance: 1 MiB tells what led to an end, and fits a small eMMC often."""

MAX_TEXT: Final = 128 * 1024
"""Octets that are read for one answer."""


class InstanceLog:
    """The log of one instance, of all its runs on this host."""

    def __init__(self, folder: Path, instance: str) -> None:
        self._newer = folder / f"{instance}.log"
        self._older = folder / f"{instance}.log.1"

    def append(self, data: bytes) -> None:
        """Add what was written; raises OSError if the disk takes no more."""
        descriptor = os.open(self._newer, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, data[-HALF:])
            full = os.fstat(descriptor).st_size >= HALF
        finally:
            os.close(descriptor)
        if full:
            self._newer.replace(self._older)

    def tail(self, lines: int) -> str:
        """Return the last lines, without what a terminal would obey; empty if there is nothing."""
        data = _end_of(self._newer, MAX_TEXT)
        if len(data) < MAX_TEXT:
            data = _end_of(self._older, MAX_TEXT - len(data)) + data
        text = data.decode(errors="replace")
        written = [line for line in text.split("\n") if line]
        return "".join(_harmless(line) + "\n" for line in written[-lines:])

    def remove(self) -> None:
        """Remove the files."""
        for path in (self._newer, self._older):
            path.unlink(missing_ok=True)


class LogBook:
    """The logs of all instances of one netd; `folder` is private to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, instance: str) -> InstanceLog:
        """Return the log of an instance, which need not be there yet."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return InstanceLog(self._folder, instance)

    def keep(self, instances: Collection[str]) -> None:
        """Remove the logs of all other instances."""
        with contextlib.suppress(FileNotFoundError):
            for path in list(self._folder.iterdir()):
                if path.name.partition(".")[0] not in instances:
                    path.unlink(missing_ok=True)


def _end_of(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read(size)
    except FileNotFoundError:
        return b""


def _harmless(line: str) -> str:
    return "".join("\ufffd" if unicodedata.category(one) in {"Cc", "Cf"} and one != "\t" else one for one in line)
