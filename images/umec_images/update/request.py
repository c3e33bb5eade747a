"""What the agent asks of the keeper: one connection, one request, and the parts of an image as they are wanted.

    agent                                                       keeper
      │ {"op": "take", "manifest": HEX, "size": N, "attempt": K} │
      │ N bytes of manifest.json                                 │
      │                 {"ok": true, "want": "approval", "size"} │  where the manifest names one
      │ approval                                                 │
      │                  {"ok": true, "want": "uki.efi", "size"} │
      │ uki.efi                                                  │
      │                 {"ok": true, "want": "root.img", "size"} │  not where it is in its slot already
      │ root.img                                                 │
      │                   {"ok": true, "want": null, "phase": …} │

      │ {"op": "try", "manifest": HEX}                           │
      │                   {"ok": true, "want": null, "phase": …} │  and the machine restarts

Lines are JSON. A refusal is {"ok": false, "code", "detail", "advice"}, also in the middle of a part, and the last line.
"""

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from umec_core.errors import UmecError
from umec_images.nodeimage.papers import MAX_PAPERS
from umec_images.update.errors import RequestInvalid

__all__ = ["Line", "Take", "Try"]

MAX_LINE: Final = 1024
CHUNK: Final = 256 * 1024
SILENCE: Final = 120.0
"""Seconds without a byte after which an agent is given up: a download that stalls is begun anew."""
_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Take:
    """Take the image whose manifest.json has this SHA-256 (hex) and so many bytes, for the order of this number."""

    manifest: str
    size: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Try:
    """Start that image once: it was taken."""

    manifest: str


class Line:
    """A connection of an agent."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(SILENCE)
        self._connection = connection
        self._file = connection.makefile("rb", buffering=CHUNK)

    def request(self) -> Take | Try:
        """Return what is asked for. Raises RequestInvalid."""
        try:
            said = json.loads(self._file.readline(MAX_LINE))
        except (ValueError, RecursionError, OSError) as error:
            raise RequestInvalid("the agent's request is no line of JSON") from error
        match said:
            case {"op": "take", "manifest": str(manifest), "size": int(size), "attempt": int(attempt), **more}:
                whole = 0 < size <= MAX_PAPERS and 0 <= attempt < 2**31 and bool not in {type(size), type(attempt)}
                if not more and whole and _HEX.fullmatch(manifest):
                    return Take(manifest, size, attempt)
            case {"op": "try", "manifest": str(manifest), **more} if not more and _HEX.fullmatch(manifest):
                return Try(manifest)
        raise RequestInvalid("the agent asks for nothing that is known here")

    def part(self, size: int) -> Iterator[bytes]:
        """Return exactly so many bytes, in pieces. Raises RequestInvalid where they do not come."""
        while size:
            try:
                data = self._file.read(min(size, CHUNK))
            except OSError as error:
                raise RequestInvalid("the agent fell silent in the middle of a part") from error
            if not data:
                raise RequestInvalid(f"the agent ended {size} bytes before the end of a part")
            size -= len(data)
            yield data

    def want(self, part: str, size: int) -> None:
        """Ask for a part."""
        self._say({"ok": True, "want": part, "size": size})

    def done(self, phase: str) -> None:
        """Say that it is done."""
        self._say({"ok": True, "want": None, "phase": phase})

    def refuse(self, error: UmecError) -> None:
        """Say why not, and read what is still under way, so that the agent comes to read it."""
        try:
            self._say({"ok": False, "code": error.code, "detail": error.detail, "advice": error.advice})
            self._connection.shutdown(socket.SHUT_WR)
            while self._file.read(CHUNK):
                pass
        except OSError:
            return

    def _say(self, line: dict[str, Any]) -> None:
        self._connection.sendall(json.dumps(line).encode() + b"\n")
