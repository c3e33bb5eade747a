"""Unbound as a child process: a configuration from a fixed template, and live names through its control socket.

Names and addresses were checked by `names`; they are checked once more here, because the control protocol is text. What
is not a name of ours does not exist: this resolver asks nobody else.
"""

import asyncio
import contextlib
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Final

import structlog

from umec_platform.netd.errors import ResolverFailed

__all__ = ["Record", "Resolver"]

START_TIME: Final = 5.0
"""Seconds until Unbound must answer at its control socket; it takes about 50 ms."""

ANSWER_TIME: Final = 5.0
"""Seconds for one command, a bulk of thousands of names included."""

RESTART_PAUSE: Final = 1.0
"""Seconds before a resolver that died is started again."""

_NAME: Final = re.compile(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+", re.ASCII)
_PATH: Final = re.compile(r"/[A-Za-z0-9._/@+-]+", re.ASCII)

_log = structlog.get_logger(__name__)

_TEMPLATE: Final = """\
server:
  interface: {address}
  port: 53
  do-ip6: no
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{directory}"
  pidfile: ""
  use-syslog: no
  log-queries: no
  verbosity: 0
  num-threads: 1
  access-control: 0.0.0.0/0 allow
  hide-identity: yes
  hide-version: yes
  minimal-responses: yes
  module-config: "iterator"
  local-zone: "." static
remote-control:
  control-enable: yes
  control-use-cert: no
  control-interface: "{socket}"
"""


@dataclass(frozen=True, slots=True)
class Record:
    """One answer: `kind` is A or AAAA, `ttl` in seconds."""

    name: str
    kind: str
    address: str
    ttl: int

    def line(self) -> str:
        """Return the record in the text of a zone; raises `ResolverFailed` for anything that is not what it seems."""
        version = {"A": 4, "AAAA": 6}.get(self.kind)
        if _NAME.fullmatch(self.name) is None or ip_address(self.address).version != version:
            raise ResolverFailed("a record that is not a name with its address")
        return f"{self.name} {int(self.ttl)} IN {self.kind} {ip_address(self.address)}"


class Resolver:
    """The resolver of one host: `directory` is private to netd, it listens on port 53 of `address` (UDP and TCP)."""

    def __init__(self, directory: Path, address: IPv4Address) -> None:
        if _PATH.fullmatch(str(directory)) is None:
            raise ResolverFailed("the state directory has a name that cannot stand in a configuration file")
        self._directory = directory
        self._address = address
        self._socket = directory / "control"
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._records: dict[tuple[str, str], Record] = {}
        self._doubtful: set[str] = set()
        """Names about which a change failed: it is not known what Unbound answers for them."""

    @property
    def pid(self) -> int | None:
        """The process that answers, if it runs."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start Unbound and wait until it takes commands; raises `ResolverFailed`."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._spawn()
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End Unbound and remove its files."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), START_TIME)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._process = None
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    async def put(self, record: Record) -> None:
        """Serve a record, instead of the one of its name and kind, which is served again if that fails."""
        key, line = (record.name, record.kind), record.line()
        before = self._records.get(key)
        if before == record:
            return
        if before is not None:
            await self.remove(record.name, record.kind)
        try:
            with self._doubt({record.name}):
                await self._command(f"local_data {line}")
        except ResolverFailed:
            if before is not None:
                with contextlib.suppress(ResolverFailed):
                    await self._command(f"local_data {before.line()}")
                    self._records[key] = before
            raise
        self._records[key] = record

    async def remove(self, name: str, kind: str) -> None:
        """Serve a record no more; its name's other kind stays."""
        record = self._records.get((name, kind))
        if record is None:
            return
        with self._doubt({name}):
            await self._command(f"local_data_remove {record.name}")
            del self._records[name, kind]
            for other in [other for other in self._records.values() if other.name == name]:
                await self._command(f"local_data {other.line()}")

    async def replace(self, records: Iterable[Record]) -> None:
        """Serve exactly these records, whatever came of earlier changes."""
        wanted = {(record.name, record.kind): record for record in records}
        if wanted == self._records and not self._doubtful:
            return
        lines = [record.line() for record in wanted.values()]
        gone = sorted({record.name for record in self._records.values()} | self._doubtful)
        with self._doubt({record.name for record in wanted.values()} | set(gone)):
            if gone:
                await self._bulk("local_datas_remove", gone)
            self._records = {}
            if lines:
                await self._bulk("local_datas", lines)
        self._records, self._doubtful = wanted, set()

    @contextlib.contextmanager
    def _doubt(self, names: set[str]) -> Iterator[None]:
        """Remember names about which a change did not succeed: the next `replace` removes them first."""
        try:
            yield
        except BaseException:
            self._doubtful |= names
            raise

    async def _spawn(self) -> None:
        self._socket.unlink(missing_ok=True)
        configuration = self._directory / "unbound.conf"
        configuration.write_text(
            _TEMPLATE.format(address=self._address, directory=self._directory, socket=self._socket)
        )
        # setpriv asks the kernel to end Unbound if netd dies: nothing answers without a master.
        self._process = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", "unbound", "-d", "-c", str(configuration),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(START_TIME):
                while not await self._answers():
                    if self._process.returncode is not None:
                        raise ResolverFailed(
                            f"unbound ended with status {self._process.returncode}",
                            advice=f"is port 53 of {self._address} free?",
                        )
                    await asyncio.sleep(0.01)
        except TimeoutError as error:
            raise ResolverFailed("unbound does not come up") from error

    async def _answers(self) -> bool:
        """Whether Unbound takes commands: its socket is there a moment before it listens."""
        if not self._socket.exists():
            return False
        try:
            await self._exchange("UBCT1 status\n")
        except ResolverFailed:
            return False
        return True

    async def _watch(self) -> None:
        while self._process is not None:
            status = await self._process.wait()
            _log.error("resolver died", status=status)
            await asyncio.sleep(RESTART_PAUSE)
            try:
                await self._spawn()
                wanted, self._records, self._doubtful = self._records, {}, set()
                await self.replace(wanted.values())
            except ResolverFailed as error:
                _log.error("resolver does not start", code=error.code, detail=error.detail)

    async def _command(self, command: str) -> None:
        answer = await self._exchange(f"UBCT1 {command}\n")
        if not answer.startswith("ok"):
            raise ResolverFailed(f"unbound refused a change: {answer[:200]}")

    async def _bulk(self, command: str, lines: list[str]) -> None:
        answer = await self._exchange("\n".join([f"UBCT1 {command}", *lines, ""]) + "\x04\n")
        if not answer.startswith(("added", "removed")):
            raise ResolverFailed(f"unbound refused a bulk change: {answer[:200]}")

    async def _exchange(self, text: str) -> str:
        try:
            async with asyncio.timeout(ANSWER_TIME):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    writer.write(text.encode("ascii"))
                    await writer.drain()
                    return (await reader.read()).decode(errors="replace")
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise ResolverFailed(f"unbound does not take commands: {error}") from error
