"""docker-registry as a child: a fixed configuration, a unix socket that only we reach, its end with ours."""

import asyncio
import contextlib
import json
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Final

from umec_core.child import Child, ChildFailed, ChildTimes
from umec_images.gateway.errors import BackendUnavailable

__all__ = ["RegistryProcess"]

TIMES: Final = ChildTimes(start=10.0, stop=5.0, first_pause=1.0, last_pause=60.0)
"""A registry that does not start (a full disk) is tried again each minute: each try is told."""


class RegistryProcess:
    """A running registry; `socket` is where it listens."""

    def __init__(self, program: Path, storage: Path, *, times: ChildTimes = TIMES) -> None:
        storage.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.program = program
        self.storage: Final = storage
        # A folder of mode 0700 with a short name: paths of unix sockets have at most 107 bytes.
        self._runtime = Path(tempfile.mkdtemp(prefix="umec-registry-"))
        self._child = Child("docker-registry", self._command, ready=self._listens, times=times, log_file=self.log)

    @classmethod
    async def start(cls, program: Path, storage: Path, *, times: ChildTimes = TIMES) -> "RegistryProcess":
        """Start the registry on the folder `storage` and wait until it listens. Raises BackendUnavailable."""
        registry = cls(program, storage, times=times)
        try:
            await registry._child.start()
        except BaseException as error:
            await registry.stop()
            if isinstance(error, ChildFailed):
                raise BackendUnavailable(error.detail, advice=f"{registry.log} says why.") from error
            raise
        return registry

    @property
    def socket(self) -> Path:
        """The unix socket."""
        return self._runtime / "registry.sock"

    @property
    def log(self) -> Path:
        """What it wrote; the older half is beside it, with the ending .1."""
        return self.storage.parent / "registry.log"

    @property
    def pid(self) -> int | None:
        """Its process, if it runs."""
        return self._child.pid

    async def supervise(self) -> None:
        """Start the registry again whenever it ends; runs until it is cancelled."""
        await self._child.keep()

    async def stop(self) -> None:
        """End the registry and remove its socket."""
        await self._child.stop()
        shutil.rmtree(self._runtime, ignore_errors=True)

    def _command(self) -> list[str]:
        self.socket.unlink(missing_ok=True)
        config = self._runtime / "config.json"
        config.write_text(json.dumps(self._config()))
        config.chmod(0o600)
        return [str(self.program), "serve", str(config)]

    async def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_unix_connection(self.socket)
            writer.close()
            return True
        return False

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
