"""A serial console: bytes to lines of text, however they are cut and whatever a firmware paints."""

import re
from typing import Final

__all__ = ["Console"]

MAX_LINE: Final = 4096
"""Characters; what is behind them in a line is thrown away. A kernel's lines have at most 1024."""

_ESCAPE: Final = re.compile(rb"\x1b(?:\[[0-9;?=]*[A-Za-z]|[^\[])")
"""Sequences that move a cursor or paint: CSI, and those of one byte."""
_UNFINISHED: Final = re.compile(rb"\x1b(?:\[[0-9;?=]{0,32})?\Z")


class Console:
    """Feed it what was read; it returns the lines that are whole."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that end in `data`, without what would paint on a terminal or turn its text round."""
        pending = self._rest + data
        cut = _UNFINISHED.search(pending)
        tail = pending[cut.start() :] if cut else b""
        *whole, last = _ESCAPE.sub(b"", pending[: len(pending) - len(tail)]).split(b"\n")
        self._rest = last[:MAX_LINE] + tail
        return [_text(line) for line in whole]

    def close(self) -> list[str]:
        """Return the line that was never ended, if there is one."""
        last, self._rest = self._rest, b""
        return [_text(last)] if last else []


def _text(line: bytes) -> str:
    text = line[:MAX_LINE].decode(errors="replace")
    return "".join(character for character in text if character.isprintable() or character == "\t")
