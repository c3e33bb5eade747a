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

from umec_core.child import Child, ChildFailed, ChildTimes
from umec_platform.netd.errors import ResolverFailed

__all__ = ["Record", "Resolver"]

TIMES: Final = ChildTimes(start=5.0, stop=5.0, first_pause=0.5, last_pause=5.0)
"""It takes about 50 ms to start; names wait for it."""

ANSWER_TIME: Final = 5.0
"""Seconds for one command, a bulk of thousands of names included."""

_NAME: Final = re.compile(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+", re.ASCII)
_PATH: Final = re.compile(r"/[A-Za-z0-9._/@+-]+", re.ASCII)

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
        # Nothing answers without a master: it has nothing to clean up.
        self._child = Child("unbound", self._command_line, ready=self._answers, times=TIMES, orphan="KILL")
        self._keeping: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._records: dict[tuple[str, str], Record] = {}
        self._doubtful: set[str] = set()
        """Names about which a change failed: it is not known what Unbound answers for them."""

    @property
    def pid(self) -> int | None:
        """The process that answers, if it runs."""
        return self._child.pid

    async def start(self) -> None:
        """Start Unbound and wait until it takes commands; raises `ResolverFailed`."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            await self._child.start()
        except ChildFailed as error:
            raise ResolverFailed(error.detail, advice=f"is port 53 of {self._address} free?") from error
        self._keeping = asyncio.create_task(self._child.keep(self._serve_again))

    async def stop(self) -> None:
        """End Unbound and remove its files."""
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
        await self._child.stop()
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    async def put(self, record: Record) -> None:
        """Serve a record, instead of the one of its name and kind, which is served again if that fails."""
        key, line = (record.name, record.kind), record.line()
        async with self._turn:
            before = self._records.get(key)
            if before == record:
                return
            if before is not None:
                await self._remove(before)
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
        async with self._turn:
            record = self._records.get((name, kind))
            if record is not None:
                await self._remove(record)

    async def _remove(self, record: Record) -> None:
        with self._doubt({record.name}):
            await self._command(f"local_data_remove {record.name}")
            del self._records[record.name, record.kind]
            for other in [other for other in self._records.values() if other.name == record.name]:
                await self._command(f"local_data {other.line()}")

    async def replace(self, records: Iterable[Record]) -> None:
        """Serve exactly these records, whatever came of earlier changes."""
        wanted = {(record.name, record.kind): record for record in records}
        async with self._turn:
            if wanted != self._records or self._doubtful:
                await self._replace(wanted)

    async def _replace(self, wanted: dict[tuple[str, str], Record]) -> None:
        lines = [record.line() for record in wanted.values()]
        gone = sorted({record.name for record in self._records.values()} | self._doubtful)
        with self._doubt({record.name for record in wanted.values()} | set(gone)):
            if gone:
                await self._bulk("local_datas_remove", gone)
            self._records = {}
            if lines:
                await self._bulk("local_datas", lines)
        self._records, self._doubtful = wanted, set()

    async def _serve_again(self) -> None:
        """Give a resolver that was started again what it served; raises `ResolverFailed`, and has it all the same."""
        async with self._turn:
            wanted, self._records, self._doubtful = self._records, {}, set()
            try:
                await self._replace(wanted)
            except ResolverFailed:
                self._records = wanted
                raise

    @contextlib.contextmanager
    def _doubt(self, names: set[str]) -> Iterator[None]:
        """Remember names about which a change did not succeed: the next `replace` removes them first."""
        try:
            yield
        except BaseException:
            self._doubtful |= names
            raise

    def _command_line(self) -> list[str]:
        self._socket.unlink(missing_ok=True)
        configuration = self._directory / "unbound.conf"
        configuration.write_text(
            _TEMPLATE.format(address=self._address, directory=self._directory, socket=self._socket)
        )
        return ["unbound", "-d", "-c", str(configuration)]

    async def _answers(self) -> bool:
        """Whether Unbound takes commands: its socket is there a moment before it listens."""
        if not self._socket.exists():
            return False
        try:
            await self._exchange("UBCT1 status\n")
        except ResolverFailed:
            return False
        return True

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
