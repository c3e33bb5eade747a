"""A piece of work in a process of its own: its temporary files, its time, and what it says at the end."""

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

__all__ = ["Fork"]

GRACE: Final = 10.0
"""Seconds in which late work may still stop the servers that it started."""


class Fork:
    """A running fork; afterwards `result` is what `work` returned (as JSON), or None if it did not get that far."""

    def __init__(self, work: Callable[[Path], dict[str, Any]], *, seconds: float = float("inf")) -> None:
        if threading.active_count() > 1:
            raise RuntimeError("a fork leaves other threads behind, and the locks that they hold")
        self.started = time.monotonic()
        self.late = False
        self.result: dict[str, Any] | None = None
        self._until = self.started + seconds
        self._folder = Path(tempfile.mkdtemp(prefix="mutant-"))
        self._folder.chmod(0o1777)  # some tests give up their rights
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            self._work(work)

    def _work(self, work: Callable[[Path], dict[str, Any]]) -> None:
        try:
            os.setpgid(0, 0)
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(nothing, stream)
            tempfile.tempdir = os.environ["TMPDIR"] = str(self._folder)
            (self._folder / "result").write_text(json.dumps(work(self._folder)), encoding="utf-8")
        finally:
            os._exit(0)  # nothing of the parent ends here

    def ended(self) -> bool:
        """Tell whether it is over; what is late is made to end."""
        if not os.waitpid(self._pid, os.WNOHANG)[0]:
            late = time.monotonic() - self._until
            if late > 0 and not self.late:
                self.late = True
                os.kill(self._pid, signal.SIGINT)
            elif late > GRACE:
                os.killpg(self._pid, signal.SIGKILL)
            return False
        if (self._folder / "result").exists() and not self.late:
            self.result = json.loads((self._folder / "result").read_text(encoding="utf-8"))
        self._clear()
        return True

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._clear()

    def _clear(self) -> None:
        """Leave nothing of it behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)
