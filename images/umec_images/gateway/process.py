"""docker-registry as a child: a fixed configuration, a unix socket that only we reach, its end with ours."""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from umec_images.gateway.errors import BackendUnavailable

__all__ = ["RegistryProcess", "append_bounded"]

log = structlog.get_logger("umec.images")

START_SECONDS: Final = 10
STOP_SECONDS: Final = 5
RESTART_SECONDS: Final = 1.0
MAX_RESTART_SECONDS: Final = 60.0
"""A registry that does not start (a full disk) is tried again each minute: each try is told."""
MAX_LOG: Final = 2 * 1024 * 1024
"""Bytes of its log: it writes errors only, each some hundred bytes."""


@dataclass(slots=True)
class RegistryProcess:
    """A running registry; `socket` is where it listens."""

    program: Path
    storage: Path
    runtime: Path
    """A folder of mode 0700 with a short name: paths of unix sockets have at most 107 bytes."""
    _child: asyncio.subprocess.Process | None = None
    _keeping: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, program: Path, storage: Path) -> "RegistryProcess":
        """Start the registry on the folder `storage` and wait until it listens. Raises BackendUnavailable."""
        registry = cls(program=program, storage=storage, runtime=_folders(storage))
        try:
            await registry._spawn()
        except BaseException:
            await registry.stop()
            raise
        return registry

    @property
    def socket(self) -> Path:
        """The unix socket."""
        return self.runtime / "registry.sock"

    @property
    def log(self) -> Path:
        """What it wrote; the older half is beside it, with the ending .1."""
        return self.storage.parent / "registry.log"

    async def supervise(self) -> None:
        """Start the registry again whenever it ends; runs until it is cancelled."""
        pause = RESTART_SECONDS
        while True:
            if self._child is not None:
                status = await self._child.wait()
                log.warning("docker-registry ended", status=status, again_in=pause, log=str(self.log))
            await asyncio.sleep(pause)
            try:
                await self._spawn()
            except BackendUnavailable as error:
                log.warning("docker-registry does not start", code=error.code, detail=error.detail)
                if self._child is not None and self._child.returncode is None:
                    self._child.kill()
                pause = min(pause * 2, MAX_RESTART_SECONDS)
            else:
                log.info("docker-registry started again")
                pause = RESTART_SECONDS

    async def stop(self) -> None:
        """End the registry and remove its socket."""
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            child.terminate()
            try:
                await asyncio.wait_for(child.wait(), STOP_SECONDS)
            except TimeoutError:
                child.kill()
                await child.wait()
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            await keeping
        shutil.rmtree(self.runtime, ignore_errors=True)

    async def _spawn(self) -> None:
        self.socket.unlink(missing_ok=True)
        config = self.runtime / "config.json"
        config.write_text(json.dumps(self._config()))
        config.chmod(0o600)
        # setpriv: the child gets SIGTERM when this process ends in whatever way.
        arguments = ["setpriv", "--pdeathsig", "TERM", str(self.program), "serve", str(config)]
        self._child = child = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        if self._keeping is not None:
            await self._keeping
        self._keeping = asyncio.create_task(self._keep_log(child))
        await self._listening(child)

    async def _keep_log(self, child: asyncio.subprocess.Process) -> None:
        """Append what the child writes to a log of bounded size, until it ends: it must never wait for its reader."""
        assert child.stdout is not None  # noqa: S101 - it was asked for
        while written := await child.stdout.read(MAX_LOG // 64):
            try:
                await asyncio.to_thread(append_bounded, self.log, written, MAX_LOG // 2)
            except OSError as error:
                log.warning("docker-registry's log is not written", error=type(error).__name__)

    async def _listening(self, child: asyncio.subprocess.Process) -> None:
        for _ in range(START_SECONDS * 20):
            if child.returncode is not None:
                raise BackendUnavailable(f"docker-registry ended with status {child.returncode} at its start")
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_unix_connection(self.socket)
                writer.close()
                return
            await asyncio.sleep(0.05)
        raise BackendUnavailable(f"docker-registry does not listen after {START_SECONDS} s")

    def _config(self) -> dict[str, object]:
        """Return its configuration (JSON is YAML): no text of a client is ever part of it."""
        return {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.storage)}},
            "http": {
                "net": "unix",
                "addr": str(self.socket),
                "secret": secrets.token_hex(32),
                "relativeurls": True,
            },
        }


def _folders(storage: Path) -> Path:
    storage.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Path(tempfile.mkdtemp(prefix="umec-registry-"))


def append_bounded(path: Path, written: bytes, half: int) -> None:
    """Append to a file; one that has `half` bytes becomes the older half (`.1`). Raises OSError."""
    with open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(written)
        full = file.tell() >= half
    if full:
        path.replace(path.with_name(f"{path.name}.1"))
