"""Instances as runc containers: prepare (check and unpack), create (paused, without a network), start, remove."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from secrets import token_hex
from typing import Final

import structlog

from umec_platform.netd.bundle import process, runtime_spec
from umec_platform.netd.decisions import Admitted
from umec_platform.netd.errors import RuntimeFailed
from umec_platform.netd.host import HostFacts, remove_cgroup
from umec_platform.netd.image import open_layer, read_image
from umec_platform.netd.logs import InstanceLog, LogBook
from umec_platform.netd.messages import InstanceSpec
from umec_platform.netd.mounts import mount_tmpfs, unmount
from umec_platform.netd.unpack import unpack_layer

__all__ = ["Bundle", "Container", "Containers"]

RUNC_TIME: Final = 30.0
"""Seconds for one call of runc, which takes some 30 ms."""

READ: Final = 65536
READ_EVERY: Final = 0.25
"""Octets of an instance's output that are read at once, and seconds until the next: whoever writes more has to wait, so
that it costs its neighbours neither netd's time nor the life of the disk.
"""

FIRST_USER: Final = 1_879_048_192
"""First uid of instances whose image names none: each has its own, far above those of people and of containers."""

LAST_USERS: Final = 100_000_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked and unpacked instance that does not run yet."""

    instance: str
    directory: Path


class Container:
    """A created container: `pid` is its first process; what it writes goes to the log."""

    def __init__(self, bundle: Bundle, pid: int, output: int, kept: InstanceLog) -> None:
        self.bundle: Final = bundle
        self.pid: Final = pid
        self._log = kept
        self._pause: asyncio.TimerHandle | None = None
        self._pipe = output
        self._watch = os.pidfd_open(pid)
        self.running = True

    def follow(self, on_exit: Callable[[str], None]) -> None:
        """Keep the output, and call back when the process has ended."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pipe, self._read)
        loop.add_reader(self._watch, self._ended, on_exit)

    def release(self) -> None:
        """Keep what is left of the output, and close what watches the process."""
        if self._pause is not None:
            self._pause.cancel()
        if self._pipe >= 0:
            self._take()
        loop = asyncio.get_running_loop()
        for descriptor in (self._pipe, self._watch):
            if descriptor >= 0:
                loop.remove_reader(descriptor)
                os.close(descriptor)
        self._pipe = self._watch = -1

    def _read(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pipe)
        if self._take():
            self._pause = loop.call_later(READ_EVERY, loop.add_reader, self._pipe, self._read)

    def _take(self) -> bool:
        """Read once; returns whether there may be more."""
        try:
            data = os.read(self._pipe, READ)
        except BlockingIOError:
            return True
        try:
            self._log.append(data)
        except OSError as error:
            _log.warning("output is lost", instance=self.bundle.instance, reason=str(error))
        return bool(data)

    def _ended(self, on_exit: Callable[[str], None]) -> None:
        asyncio.get_running_loop().remove_reader(self._watch)
        self.running = False
        on_exit(self.bundle.instance)


class Containers:
    """All containers of one netd. `state` is private to it; `resolver` goes into each /etc/resolv.conf."""

    def __init__(self, state: Path, host: HostFacts, resolver: IPv4Address) -> None:
        self._bundles = state / "instances"
        self._runc_root = state / "runc"
        self._log = state / "runc.json"
        self.logs: Final = LogBook(state / "logs")
        self._resolv_conf = state / "resolv.conf"
        self._host = host
        self._resolver = resolver
        self._next_user = 0
        # Control groups of two hosts on one machine must not meet; both may be process 1, each of its own namespace.
        self._cgroup = f"/umec-{token_hex(8)}"

    async def open(self) -> None:
        """Make the folders, and remove what an earlier netd left."""
        for directory in (self._bundles, self._runc_root):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._resolv_conf.write_text(f"nameserver {self._resolver}\noptions timeout:1\n")
        self._resolv_conf.chmod(0o644)
        for left in {path.name for folder in (self._bundles, self._runc_root) for path in folder.iterdir()}:
            _log.warning("instance left behind is removed", instance=left)
            await self.remove(left)

    async def close(self) -> None:
        """Remove the folders; the containers are gone already. Logs stay: they say what led to an end."""
        for left in [path.name for path in self._bundles.glob("*")]:
            await self.remove(left)
        shutil.rmtree(self._bundles, ignore_errors=True)
        shutil.rmtree(self._runc_root, ignore_errors=True)
        for file in (self._resolv_conf, self._log):
            file.unlink(missing_ok=True)
        if self._host.cgroups:
            remove_cgroup(self._cgroup)

    async def prepare(self, spec: InstanceSpec, admitted: Admitted) -> Bundle:
        """Check and unpack the admitted image; raises `LayerDigest`, `ImageInvalid` or `RuntimeFailed`."""
        bundle = Bundle(admitted.instance, self._bundles / admitted.instance)
        self._next_user = (self._next_user + 1) % LAST_USERS
        user = FIRST_USER + self._next_user
        try:
            await asyncio.to_thread(self._unpack, bundle.directory, spec, admitted, user)
        except BaseException:
            await self.remove(admitted.instance)
            raise
        return bundle

    def _unpack(self, directory: Path, spec: InstanceSpec, admitted: Admitted, user: int) -> None:
        image = read_image(Path(spec.blobs), admitted.digest)
        what = process(spec, image.config, default_user=user, only_user=0 if self._host.mapped else None)
        root, secrets = directory / "rootfs", directory / "secrets"
        directory.mkdir(mode=0o700)
        root.mkdir(mode=0o755)
        secrets.mkdir(mode=0o700)
        for layer in image.layers:
            with open_layer(Path(spec.blobs), layer) as tar:
                unpack_layer(tar, root, owners=not self._host.mapped)
        root.chmod(0o755)
        mount_tmpfs(secrets)
        for name, content in spec.secrets.items():
            _write_secret(secrets / name, base64.b64decode(content), what.uid, what.gid)
        secrets.chmod(0o500)
        os.chown(secrets, what.uid, what.gid)
        config = runtime_spec(
            spec, what, root=root, secrets=secrets, resolv_conf=self._resolv_conf,
            cgroup=f"{self._cgroup}/{spec.instance}" if self._host.cgroups else None,
        )  # fmt: skip
        (directory / "config.json").write_text(json.dumps(config))

    async def create(self, bundle: Bundle) -> Container:
        """Create the container: its namespaces are there, its program has not begun; raises `RuntimeFailed`."""
        pid_file = bundle.directory / "pid"
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(reading, False)
            # The instance's output is this pipe for all its life.
            await self._runc(
                "create",
                "--bundle",
                str(bundle.directory),
                "--pid-file",
                str(pid_file),
                bundle.instance,
                output=writing,
            )
            kept = await asyncio.to_thread(self.logs.of, bundle.instance)
            return Container(bundle, int(pid_file.read_text()), reading, kept)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)

    async def start(self, container: Container) -> None:
        """Let the program begin; raises `RuntimeFailed`."""
        await self._runc("start", container.bundle.instance)

    async def remove(self, instance: str) -> None:
        """Kill the container, if there is one, and remove its secrets and files."""
        if (self._runc_root / instance).exists():
            await self._runc("delete", "--force", instance)
        directory = self._bundles / instance
        await asyncio.to_thread(unmount, directory / "secrets")
        if directory.exists():
            await asyncio.to_thread(shutil.rmtree, directory)

    async def _runc(self, *args: str, output: int | None = None) -> None:
        rootless = "false" if self._host.cgroups else "true"
        log = self._log
        log.unlink(missing_ok=True)
        runc = await asyncio.create_subprocess_exec(
            "runc", "--root", str(self._runc_root), "--rootless", rootless, "--log", str(log), "--log-format", "json",
            *args,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL if output is None else output,
            stderr=asyncio.subprocess.DEVNULL if output is None else output,
        )  # fmt: skip
        try:
            status = await asyncio.wait_for(runc.wait(), RUNC_TIME)
        except TimeoutError as error:
            runc.kill()
            await runc.wait()
            raise RuntimeFailed(f"runc {args[0]} does not end") from error
        if status != 0:
            raise RuntimeFailed(f"runc {args[0]} failed: {_reason(log)}")


def _write_secret(path: Path, content: bytes, uid: int, gid: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    os.chown(path, uid, gid)


def _reason(log: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError, TypeError):
        return str(json.loads(log.read_text().splitlines()[-1])["msg"])[:500]
    return "no reason given"
