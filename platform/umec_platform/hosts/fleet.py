"""All hosts at once: a worker for each, made when the host appears, and the way from the outbox to them."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any, Final

from sqlalchemy import select

from umec_platform.effects import Ledger, RuleKey
from umec_platform.errors import HostSilent
from umec_platform.hosts.ports import Connect, HostDriver, Recoverer, StandingSource
from umec_platform.hosts.schemas import BY_RELAY
from umec_platform.hosts.worker import LOOK_EVERY, LOOK_FAR_EVERY, HostWorker, Waiter, relay_standing
from umec_platform.tables.hosts import HostRow

__all__ = ["Fleet"]

PATIENCE: Final = 2.0
"""Seconds that a caller waits for a host to judge a rule; after that it is told that nobody has."""


class Fleet:
    """The workers of all hosts."""

    def __init__(self, ledger: Ledger, connect: Connect, source: StandingSource | None, recovery: Recoverer) -> None:
        self._ledger = ledger
        self._connect = connect
        self._source = source
        self._recovery = recovery
        self._workers: dict[str, HostWorker] = {}
        self._drivers: dict[str, HostDriver] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Work until cancelled; every host is brought to its desired state first."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                async with self._ledger.store.read() as session:
                    rows = list(await session.scalars(select(HostRow)))
                for row in rows:
                    self._employ(row)
                await asyncio.Event().wait()
        finally:
            self._tasks = None
            self._workers.clear()

    async def handle(self, payload: dict[str, Any]) -> None:
        """Take a row of the outbox (topic HOST): remember that a host, or a rule of it, has to be looked at.

        That is enough: were this process to die now, every host would be looked at when it starts again.
        """
        worker = self._workers.get(payload["host"])
        if worker is None:
            async with self._ledger.store.read() as session:
                row = await session.get(HostRow, payload["host"])
            if row is not None:
                self._employ(row)
            return
        rule = payload.get("rule")
        worker.look_at(None if rule is None else RuleKey(*rule))

    @contextlib.asynccontextmanager
    async def settled(self, host: str, rule: RuleKey) -> AsyncIterator[Waiter]:
        """Leave the block when the host has taken the rule that was written in it.

        Raises the host's refusal, and `HostSilent` if it has not judged the rule in time; what was written stays.
        """
        worker = self._workers.get(host)
        if worker is None:
            waiter = Waiter()
            yield waiter
            await waiter.wait(0)
            return
        async with worker.settled(rule, seconds=PATIENCE) as waiter:
            yield waiter

    @contextlib.asynccontextmanager
    async def undisturbed(self, host: str) -> AsyncIterator[None]:
        """Have nobody set the host as a whole while the block runs, or by rows that were read before its end."""
        async with self._locks[host]:
            yield

    async def relay(self, host: str) -> None:
        """Hand the newest standing to a host now; raises what either side raises, and `HostSilent` if it is unknown."""
        await relay_standing(self._source, await self.driver(host), (await self._row(host)).node)

    async def driver(self, host: str) -> HostDriver:
        """Return the operations of a host; raises `HostSilent` if there is no such host."""
        if host not in self._drivers:
            self._drivers[host] = self._connect((await self._row(host)).netd)
        return self._drivers[host]

    async def _row(self, host: str) -> HostRow:
        async with self._ledger.store.read() as session:
            row = await session.get(HostRow, host)
        if row is None:
            raise HostSilent(f"there is no host {host}")
        return row

    def _employ(self, row: HostRow) -> None:
        if self._tasks is None or row.id in self._workers:
            return
        driver = self._drivers.setdefault(row.id, self._connect(row.netd))
        worker = HostWorker(
            row.id,
            row.node,
            driver=driver,
            ledger=self._ledger,
            source=self._source,
            recovery=self._recovery,
            whole=self._locks[row.id],
            look_every=LOOK_FAR_EVERY if row.netd.startswith(BY_RELAY) else LOOK_EVERY,
        )
        self._workers[row.id] = worker
        self._tasks.create_task(worker.run(), name=f"host {row.id}")
