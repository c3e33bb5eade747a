"""A program that runs beside us: started and waited for, started again whenever it ends, and ended with us.

The kernel ends it when this process ends, in whatever way (`setpriv --pdeathsig`), so that no orphan goes on. It has a
session of its own: a Ctrl-C in a terminal reaches us, and we end it in our order.

    ChildFailed   child-failed   the program cannot be started, ends at its start, or does not become ready in time
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import structlog

from umec_core.errors import UmecError, Unavailable

__all__ = ["Child", "ChildFailed", "ChildTimes", "append_bounded"]

MAX_LOG: Final = 2 * 1024 * 1024
"""Bytes that are kept of what it writes: in a file, and the half before that in another."""

LOOK_EVERY: Final = 0.02
"""Seconds between two looks whether it is ready."""

LAST_WORDS: Final = 1.0
"""Seconds that are left for what it wrote last: a program of its own may hold its output open for ever."""

OUR_STANDARD_ERROR: Final = 2

log = structlog.get_logger("umec.child")


class ChildFailed(Unavailable):
    """A program cannot be started, ended at its start, or did not become ready in time."""

    code = "child-failed"


@dataclass(frozen=True, slots=True)
class ChildTimes:
    """Seconds: until it must be ready; until it must have ended; and before it is started again, growing by doubling.

    The pause is the first one again after a life that was longer than the last one.
    """

    start: float = 10.0
    stop: float = 5.0
    first_pause: float = 0.5
    last_pause: float = 30.0

    def pause(self, before: float, *, lived: float) -> float:
        """Return the pause after a life of `lived` seconds that began after the pause `before` (0: at once)."""
        if lived > self.last_pause:
            return self.first_pause
        return min(max(2 * before, self.first_pause), self.last_pause)


class Child:
    """One program. `start`, then `keep` in a task; `stop` after that task was cancelled."""

    def __init__(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        *,
        ready: Callable[[], Awaitable[bool]] | None = None,
        times: ChildTimes | None = None,
        log_file: Path | None = None,
        orphan: Literal["TERM", "KILL"] = "TERM",
    ) -> None:
        """`command` is called before each start, makes ready what the program needs and returns its command line.

        `ready` tells whether it can be used (without: as soon as it runs); `log_file` takes what it writes (without:
        our own standard error); `orphan` is the signal that it gets if we die.
        """
        self._name = name
        self._command = command
        self._ready = ready
        self._times = times or ChildTimes()
        self._log_file = log_file
        self._orphan = orphan
        self._process: asyncio.subprocess.Process | None = None
        self._output: _Output | None = None

    @property
    def pid(self) -> int | None:
        """Its process, if it was started."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start it and wait until it is ready; raises `ChildFailed`, and then it does not run."""
        try:
            self._process = process = await self._spawn()
            async with asyncio.timeout(self._times.start):
                await self._until_ready(process)
        except TimeoutError as error:
            await self.stop()
            raise ChildFailed(f"{self._name} is not ready after {self._times.start:g} s") from error
        except BaseException:
            await self.stop()
            raise

    async def keep(self, again: Callable[[], Awaitable[None]] | None = None) -> None:
        """Start it, if it does not run, and whenever it has ended; runs until cancelled, and lets it run on then.

        `again` is called after each start; where that raises a `UmecError`, the start counts as failed.
        """
        loop, pause = asyncio.get_running_loop(), 0.0
        while True:
            if self._process is not None:
                began = loop.time()
                status = await self._process.wait()
                pause = self._times.pause(pause, lived=loop.time() - began)
                log.warning("child ended", child=self._name, status=status, again_in=pause, log=self._where)
                await asyncio.sleep(pause)
            try:
                await self.start()
                if again is not None:
                    await again()
            except UmecError as error:
                await self.stop()
                pause = self._times.pause(pause, lived=0.0)
                log.warning(
                    "child does not start", child=self._name, code=error.code, detail=error.detail, again_in=pause
                )
                await asyncio.sleep(pause)
            else:
                log.info("child runs", child=self._name, pid=self.pid)

    async def stop(self) -> None:
        """End it: asked first, and killed after its time to stop. Stopping what does not run does nothing."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            _signal(process.terminate)
            try:
                async with asyncio.timeout(self._times.stop):
                    await process.wait()
            except TimeoutError:
                log.warning("child does not end and is killed", child=self._name)
            finally:
                _signal(process.kill)
                await process.wait()
        await self._last_words()

    @property
    def _where(self) -> str | None:
        return None if self._log_file is None else str(self._log_file)

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        while self._ready is not None and not await self._ready():
            if process.returncode is not None:
                raise ChildFailed(f"{self._name} ended with status {process.returncode} at its start")
            await asyncio.sleep(LOOK_EVERY)

    async def _spawn(self) -> asyncio.subprocess.Process:
        await self._last_words()
        line = ["setpriv", "--pdeathsig", self._orphan, "--", *self._command()]
        with contextlib.ExitStack() as closing:
            output = OUR_STANDARD_ERROR
            if self._log_file is not None:
                reading, output = os.pipe2(os.O_CLOEXEC)
                closing.callback(os.close, output)
                self._output = await _Output.open(self._name, reading, self._log_file)
            try:
                return await asyncio.create_subprocess_exec(
                    *line, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                )
            except OSError as error:
                raise ChildFailed(f"{self._name} cannot be started: {error.strerror}") from error

    async def _last_words(self) -> None:
        output, self._output = self._output, None
        if output is not None:
            await output.close()


class _Output:
    """What a child writes, on its way to a file of bounded size: the child never waits for its reader."""

    def __init__(self, name: str, transport: asyncio.ReadTransport, reader: asyncio.StreamReader, file: Path) -> None:
        self._name = name
        self._transport = transport
        self._reader = reader
        self._file = file
        self._keeping = asyncio.create_task(self._keep())

    @classmethod
    async def open(cls, name: str, reading: int, file: Path) -> "_Output":
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", buffering=0)
        )
        return cls(name, transport, reader, file)

    async def close(self) -> None:
        """Take its last words, and close."""
        await asyncio.wait([self._keeping], timeout=LAST_WORDS)
        self._transport.close()
        await self._keeping

    async def _keep(self) -> None:
        while written := await self._reader.read(MAX_LOG // 64):
            try:
                await asyncio.to_thread(append_bounded, self._file, written, MAX_LOG // 2)
            except OSError as error:
                log.warning("a child's log is not written", child=self._name, error=type(error).__name__)


def append_bounded(path: Path, written: bytes, half: int) -> None:
    """Append to a file; one that has `half` bytes becomes the older half (`.1`). Raises OSError."""
    with open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(written)
        full = file.tell() >= half
    if full:
        path.replace(path.with_name(f"{path.name}.1"))


def _signal(send: Callable[[], None]) -> None:
    with contextlib.suppress(ProcessLookupError):
        send()
