"""docker-registry as a child: a fixed configuration, a unix socket that only we reach, its end with ours."""

import asyncio
import contextlib
import json
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from umec_images.gateway.errors import BackendUnavailable

__all__ = ["RegistryProcess"]

START_SECONDS: Final = 10
STOP_SECONDS: Final = 5
RESTART_SECONDS: Final = 1.0


@dataclass(slots=True)
class RegistryProcess:
    """A running registry; `socket` is where it listens."""

    program: Path
    storage: Path
    runtime: Path
    """A folder of mode 0700 with a short name: paths of unix sockets have at most 107 bytes."""
    _child: asyncio.subprocess.Process | None = None

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

    async def supervise(self) -> None:
        """Start the registry again whenever it ends; runs until it is cancelled."""
        while True:
            if self._child is not None:
                await self._child.wait()
            await asyncio.sleep(RESTART_SECONDS)
            with contextlib.suppress(BackendUnavailable):
                await self._spawn()

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
        shutil.rmtree(self.runtime, ignore_errors=True)

    async def _spawn(self) -> None:
        self.socket.unlink(missing_ok=True)
        config = self.runtime / "config.json"
        config.write_text(json.dumps(self._config()))
        config.chmod(0o600)
        # setpriv: the child gets SIGTERM when this process ends in whatever way.
        arguments = ["setpriv", "--pdeathsig", "TERM", str(self.program), "serve", str(config)]
        with (self.storage.parent / "registry.log").open("wb") as log:
            self._child = await asyncio.create_subprocess_exec(
                *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        await self._listening(self._child)

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
