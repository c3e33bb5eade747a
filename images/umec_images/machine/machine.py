"""A node that can be switched on: QEMU with OVMF and a software TPM, its console as lines.

Its folder is the node itself: `disk.img`, `vars.fd` (what the firmware keeps) and `tpm/` stay when it is switched off.
Both programs end with the thread that started them, in whatever way that ends.
"""

import contextlib
import math
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from umec_images.machine.console import Console
from umec_images.machine.errors import MachineFailed, MachineSilent
from umec_images.machine.hardware import Hardware, command_line

__all__ = ["Line", "Machine"]

TPM_SECONDS: Final = 10.0
STOP_SECONDS: Final = 10.0
LOOK_EVERY: Final = 0.01
READ_BYTES: Final = 65536
MAX_CONSOLE: Final = 16 * 1024 * 1024
"""Bytes of a console that are kept; a boot writes some 50 kB, and a guest may write without an end."""
MAX_WAITING: Final = 100_000
"""Lines that wait for a reader; what comes behind them is in the file only."""
LAST_WORDS: Final = 600


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the console, and how many seconds after power-on it was whole."""

    text: str
    after: float


class Machine:
    """A context manager: switched on at its begin, off at its end; `lines` is what its console says."""

    def __init__(
        self,
        folder: Path,
        firmware: Path,
        *,
        network: bool = False,
        access: str | None = None,
        plugged_in: Path | None = None,
        handed_in: Sequence[tuple[str, Path]] = (),
    ) -> None:
        """`folder` holds disk.img, vars.fd and tpm/state, a manufactured software TPM; the rest as in `Hardware`."""
        self._folder = folder
        parts = (folder / "vars.fd", folder / "disk.img", Path())
        given = tuple(handed_in)
        self._hardware = Hardware(
            firmware, *parts, network=network, access=access, plugged_in=plugged_in, handed_in=given
        )
        self._sockets: Path | None = None  # paths of UNIX sockets have at most 107 bytes: never in a named folder
        self._tpm: subprocess.Popen[bytes] | None = None
        self._board: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._power_on = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def console_log(self) -> Path:
        """What the console has said since power-on."""
        return self._folder / "console.log"

    @property
    def running(self) -> bool:
        """Whether it is on."""
        return self._board is not None and self._board.poll() is None

    def start(self) -> None:
        """Switch it on. Raises MachineFailed."""
        if self._board is not None:
            raise MachineFailed("the machine is on already")
        self._sockets = Path(tempfile.mkdtemp(prefix="umec-vm-"))
        try:
            hardware = replace(self._hardware, tpm=self._start_tpm(self._sockets))
            self._lines = queue.SimpleQueue()
            self._board = self._spawn(command_line(hardware), subprocess.PIPE, self._errors)
            self._power_on = time.monotonic()
            self._reader = threading.Thread(target=self._read, args=(self._board, self._lines), daemon=True)
            self._reader.start()
        except BaseException:
            self.cut()
            raise

    def lines(self, *, seconds: float) -> Iterator[Line]:
        """Yield what the console says, as it comes, until the machine ends.

        Raises MachineSilent `seconds` (or never: inf) after this call, MachineFailed where QEMU ended with an error.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                left = deadline - time.monotonic()
                line = self._lines.get(timeout=None if left == math.inf else max(0.0, left))
            except queue.Empty:
                raise MachineSilent(
                    f"the console did not say within {seconds:g} s what was waited for", advice=str(self.console_log)
                ) from None
            if line is None:
                self._check()
                return
            yield line

    def stop(self) -> None:
        """Switch it off; what it has written to its disk is written."""
        if self._board is not None and self._board.poll() is None:
            self._board.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._board.wait(STOP_SECONDS)
        self.cut()

    def cut(self) -> None:
        """Take its power away. Doing it twice is harmless."""
        for process in (self._board, self._tpm):
            if process is not None:
                process.kill()
                process.wait()
        if self._reader is not None:
            self._reader.join()
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
        self._board = self._tpm = self._reader = self._sockets = None

    @property
    def _errors(self) -> Path:
        return self._folder / "qemu.log"

    def _check(self) -> None:
        status = None if self._board is None else self._board.wait()
        if status:
            said = self._errors.read_text(errors="replace").strip()[-LAST_WORDS:]
            raise MachineFailed(f"QEMU ended with status {status}: {said}")

    def _start_tpm(self, sockets: Path) -> Path:
        state, control, log = self._folder / "tpm" / "state", sockets / "control", self._folder / "swtpm.log"
        if not state.is_dir():
            raise MachineFailed(f"{state} is no software TPM")
        line = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state.absolute()}", "--terminate"]
        line += ["--ctrl", f"type=unixio,path={control}", "--log", f"file={log.absolute()},level=1"]
        self._tpm = self._spawn(line, subprocess.DEVNULL, log)
        deadline = time.monotonic() + TPM_SECONDS
        while not control.exists():
            if self._tpm.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace").strip()[-LAST_WORDS:]
                raise MachineFailed(f"the software TPM does not start: {said}")
            time.sleep(LOOK_EVERY)
        return control

    def _spawn(self, line: Sequence[str], output: int, errors: Path) -> subprocess.Popen[bytes]:
        ends_with_us = ["setpriv", "--pdeathsig", "KILL", "--"]
        if shutil.which(line[0]) is None:
            raise MachineFailed(f"{line[0]} is not installed", advice="scripts/bootstrap --vm")
        with errors.open("wb") as log:
            return subprocess.Popen([*ends_with_us, *line], stdin=subprocess.DEVNULL, stdout=output, stderr=log)

    def _read(self, board: subprocess.Popen[bytes], lines: "queue.SimpleQueue[Line | None]") -> None:
        """Take what the board says until it ends, whether somebody reads it or not."""
        console, kept = Console(), 0
        if board.stdout is None:
            return
        with board.stdout as output, self.console_log.open("wb", buffering=0) as log:
            while data := os.read(output.fileno(), READ_BYTES):
                if kept < MAX_CONSOLE:
                    kept += log.write(data)
                self._put(lines, console.feed(data))
            self._put(lines, console.close())
        lines.put(None)

    def _put(self, lines: "queue.SimpleQueue[Line | None]", texts: Sequence[str]) -> None:
        after = time.monotonic() - self._power_on
        for text in texts:
            if lines.qsize() < MAX_WAITING:
                lines.put(Line(text, after))
