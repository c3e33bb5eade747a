"""Runs the operations on instances. Each step may be done twice, so an operation that a crash cut off is run again.

Instantiate: 1. the node stands well now, by the verifier's own feed; 2. the image is admitted; 3. its files are here;
4. the tenant has its network on the host, and the host its lease; 5. the instance has a key of its own and is a client
of the authorization server with the scopes of its descriptor; 6. the image is admitted still, and the platform signs
its decision; 7. the host starts
the instance; 8. instance and rules (inactive until the application asks for them) are written down. If a step fails,
its client is taken back, however long that takes, and the operation says why; its host is brought to what it should
run like after any change.
Operate: an instance that should run and does not (`recovery`) is started again, by the same steps; if one fails, it
stays instantiated and down, and is tried again later.
Terminate: 1. a start that is under way is overtaken, and its end waited for; 2. the client of the instance goes, and
its tokens with it; 3. its services, subscriptions and rules go; 4. the host stops the instance. Each is tried until it
succeeds: to end is no wish that can be refused.
Whatever has not come to an end, because a neighbour is silent or nothing can be written, is run again and again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from sqlalchemy import select

from umec_core.errors import UmecError
from umec_core.standing import StandingView
from umec_platform.effects import Ledger
from umec_platform.errors import InstanceState
from umec_platform.hosts.fleet import Fleet
from umec_platform.instances.ending import Ender
from umec_platform.instances.job import load_job
from umec_platform.instances.ports import Admitter, ClientRegistrar, Puller
from umec_platform.instances.starting import Site, Starter
from umec_platform.tables.instances import OPERATE, PROCESSING, STARTING, TERMINATE, OperationRow

__all__ = ["LifeCycle"]

log = structlog.get_logger("umec.lifecycle")

FEED_PATIENCE: Final = 10.0
FEED_LOOK: Final = 0.1
"""Seconds that operations of an earlier run wait for the first standing, and between two looks."""

RETRY_EVERY: Final = 5.0
"""Seconds between looks for operations that have not come to their end and that nobody runs."""

STARTS_AT_ONCE: Final = 4
"""On one host: one that restarts brings all its instances back, and a small node unpacks a few images at a time."""


class LifeCycle:
    """Runs operations, each in a task of its own."""

    def __init__(
        self,
        ledger: Ledger,
        fleet: Fleet,
        *,
        site: Site,
        view: StandingView,
        admitter: Admitter,
        puller: Puller,
        registrar: ClientRegistrar,
        new_key: Callable[[], EllipticCurvePrivateKey] = lambda: generate_private_key(SECP256R1()),
    ) -> None:
        self._ledger = ledger
        self._view = view
        self._starter = Starter(
            ledger,
            fleet,
            site=site,
            view=view,
            admitter=admitter,
            puller=puller,
            registrar=registrar,
            new_key=new_key,
        )
        self._ender = Ender(ledger, fleet, registrar)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._starts = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(STARTS_AT_ONCE))

    async def run(self) -> None:
        """Work until cancelled; operations that were cut off, or could not come to their end, are run again."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                first = True
                while True:
                    orders = await self._unfinished()
                    if first and orders:
                        await self._hear_of_nodes()
                    first = False
                    for order in orders:
                        self._begin(order)
                    await asyncio.sleep(RETRY_EVERY)
        finally:
            self._tasks = None
            self._running.clear()

    async def _unfinished(self) -> list[str]:
        """Return the operations without an end; none if the store does not answer at this moment."""
        try:
            async with self._ledger.store.read() as session:
                query = select(OperationRow.id).where(OperationRow.state.in_([STARTING, PROCESSING]))
                return list(await session.scalars(query))
        except Exception:
            log.exception("unfinished operations could not be read")
            return []

    async def _hear_of_nodes(self) -> None:
        """Wait until the standing feed has spoken, or would have: else operations would fail for a restart alone."""
        for _ in range(round(FEED_PATIENCE / FEED_LOOK)):
            if self._view.issued_at is not None:
                return
            await asyncio.sleep(FEED_LOOK)

    async def _end_starts(self, instance: str) -> None:
        """Have starts of an instance come to their end: none of their steps may follow the end of the instance.

        Raises `InstanceState` if one cannot end now, because a neighbour is silent.
        """
        for start in await self._starts_of(instance):
            self._begin(start)
            await asyncio.wait([self._running[start]])
        if await self._starts_of(instance):
            raise InstanceState("a start of the instance has not come to its end")

    async def _starts_of(self, instance: str) -> list[str]:
        async with self._ledger.store.read() as session:
            query = select(OperationRow.id).where(
                OperationRow.instance == instance,
                OperationRow.operation != TERMINATE,
                OperationRow.state.in_([STARTING, PROCESSING]),
            )
            return list(await session.scalars(query))

    async def handle(self, payload: dict[str, Any]) -> None:
        """Take a row of the outbox (topic OPERATION): begin, and leave the rest to the operation's own state."""
        self._begin(payload["operation"])

    def _begin(self, operation: str) -> None:
        if self._tasks is not None and operation not in self._running:
            self._running[operation] = self._tasks.create_task(self._guard(operation), name=f"operation {operation}")

    async def _guard(self, operation: str) -> None:
        try:
            await self.perform(operation)
        except Exception:
            log.exception("an operation could not be written down", operation=operation)
        finally:
            self._running.pop(operation, None)

    async def perform(self, operation: str) -> None:
        """Run one operation to its end; what it comes to is in its row. One that has ended is left alone."""
        job = await self._ledger.write(lambda session: load_job(session, operation, self._ledger.clock()))
        if job is None:
            return
        if job.failed is not None:
            await self._ender.fail(job, job.failed)
            return
        try:
            if job.kind == TERMINATE:
                await self._end_starts(job.instance.id)  # 1
                await self._ender.terminate(job)
            else:
                async with self._starts[job.host.id]:
                    if job.kind == OPERATE:
                        await self._hear_of_nodes()
                    await self._starter.start(job)
        except Exception as error:
            if not isinstance(error, UmecError):
                log.exception("an operation met an unforeseen error", operation=operation)
            if job.kind == TERMINATE:
                await self._ender.wait(job, error)
            else:
                await self._ender.fail(job, error)
