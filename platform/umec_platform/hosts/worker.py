"""Brings one host to its desired state and keeps its lease alive: retried for ever, never in another host's way.

1. At the start, after any failure, after a change of standing and once a minute: the whole desired state (`sync`), as
   it is once it is known what the host still runs (3).
2. In between, one rule at a time, as it is now in the rows.
3. Every few seconds the host is asked what it is and what it runs: one that began anew is set as a whole, and instances
   that it should run and does not are started again (`instances.recovery`).
4. A rule that the host refuses for what it says is set INACTIVE, with the reason; whoever waits for it is told.
"""

import asyncio
import contextlib
from collections import defaultdict
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.errors import Kind, UmecError
from umec_platform.effects import Ledger, RuleKey
from umec_platform.hosts.desired import Desired, desired_rule, desired_state
from umec_platform.hosts.ports import HostDriver, StandingSource
from umec_platform.instances.recovery import Recovery
from umec_platform.netd.messages import TrafficRule
from umec_platform.rules.store import RuleRow
from umec_platform.rules.translate import rule_id

__all__ = ["HostWorker", "relay_standing"]

RELAY_EVERY: Final = 20.0
"""Seconds between relays of the standing: three may be lost before a lease of 90 s ends."""

SYNC_EVERY: Final = 60.0
"""Seconds after which a host is compared as a whole, whatever happened: it may have been changed unnoticed."""

LOOK_EVERY: Final = 2.0
"""Seconds between looks at what a host runs: one exchange on a socket of this machine."""

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
"""Seconds between attempts on a host that does not answer; doubled after each."""

PASSING: Final = frozenset({"standing-fallen", "standing-degraded", "lease-expired", "tenant-unknown"})
"""Refusals that say nothing about the rule itself."""

log = structlog.get_logger("umec.host")


async def relay_standing(source: StandingSource | None, driver: HostDriver, node: str) -> None:
    """Hand the newest signed standing of a node to its host; raises what either side raises.

    A host that has seen a newer one (two relays crossed each other) is content, and so are we.
    """
    if source is None:
        return
    statement = await source.standings(after=0, wait=0, node=node)
    try:
        await driver.standing(statement)
    except UmecError as error:
        if error.code != "statement-old":
            raise


class HostWorker:
    """The one who talks to a host about its state."""

    def __init__(
        self, host: str, node: str, *, driver: HostDriver, ledger: Ledger, source: StandingSource | None
    ) -> None:
        self.host: Final = host
        self._node = node
        self._driver = driver
        self._ledger = ledger
        self._source = source
        self._recovery = Recovery(ledger)
        self._wishes: asyncio.Queue[RuleKey | None] = asyncio.Queue()
        self._relay_now = asyncio.Event()
        self._waiting: defaultdict[RuleKey, list[asyncio.Future[None]]] = defaultdict(list)

    def look_at(self, rule: RuleKey | None) -> None:
        """Have one rule, or the whole host with its standing, looked at soon."""
        self._wishes.put_nowait(rule)
        if rule is None:
            self._relay_now.set()

    @contextlib.asynccontextmanager
    async def settled(self, rule: RuleKey, *, seconds: float) -> Any:  # noqa: ANN401 - a context manager of nothing
        """Leave the block when the host has taken what was written in it, or after `seconds`; raises its refusal."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[rule].append(waiter)
        try:
            yield
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(waiter, seconds)
        finally:
            self._forget(rule, waiter)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._relay_loop(), name=f"relay {self.host}")
            group.create_task(self._apply_loop(), name=f"apply {self.host}")

    async def relay(self) -> None:
        """Hand the newest signed standing of the node to the host; raises what either side raises."""
        await relay_standing(self._source, self._driver, self._node)

    async def sync(self) -> None:
        """Set the whole desired state (1)."""
        async with self._ledger.store.read() as session:
            state = await desired_state(session, self.host)
        result = await self._driver.sync(
            tenants=state.tenants, traffic=state.traffic, dns=state.dns, instances=state.instances
        )
        for key, error in state.refused.items():
            await self._refuse(key, error.code)
        await self._take_refusals(state, result)
        for key in set(state.keys.values()) & self._waiting.keys():
            self._tell(key, None)

    async def _relay_loop(self) -> None:
        pause = FIRST_PAUSE
        while True:
            self._relay_now.clear()
            try:
                await self.relay()
            except Exception as error:  # noqa: BLE001 - a host must not lose its lease because one relay failed
                _warn("relay of the standing failed", self.host, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._relay_now.wait(), RELAY_EVERY)

    async def _apply_loop(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                began = await self.look()
                await self.sync()
                pause = FIRST_PAUSE
                await self._rules_until_sync(began)
            except Exception as error:  # noqa: BLE001 - the rows stay what they are, and the host is tried again
                _warn("the host is not in its desired state", self.host, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _rules_until_sync(self, began: str) -> None:
        """Apply single rules (2) and look at the host (3) until it has to be set as a whole."""
        loop = asyncio.get_running_loop()
        deadline, look = loop.time() + SYNC_EVERY, 0.0
        while loop.time() < deadline:
            if loop.time() >= look:
                if await self.look() != began:
                    return
                look = loop.time() + LOOK_EVERY
            try:
                async with asyncio.timeout_at(min(deadline, look)):
                    rule = await self._wishes.get()
            except TimeoutError:
                continue
            if rule is None:
                return
            await self.apply(rule)

    async def look(self) -> str:
        """Have instances started again that the host should run and does not (3); returns which life of it this is."""
        expected = await self._recovery.expected(self.host)
        status = await self._driver.status()
        running = {str(one["instance"]) for one in status["instances"] if one["running"]}
        await self._recovery.compare(self.host, expected, running)
        return str(status["began"])

    async def apply(self, key: RuleKey) -> None:
        """Bring one rule to what the rows say (2, 4); raises if the host does not answer."""
        try:
            async with self._ledger.store.read() as session:
                rule = await desired_rule(session, key)
                row = await session.get(RuleRow, (key.instance, key.kind, key.rule))
            if rule is None:
                await self._remove(key, row)
            elif isinstance(rule, TrafficRule):
                await self._driver.put_traffic(rule)
            else:
                await self._driver.put_dns(rule)
        except UmecError as error:
            if error.kind is Kind.UNAVAILABLE:
                raise
            if error.code not in PASSING:
                await self._refuse(key, error.code)
            self._tell(key, error)
        else:
            self._tell(key, None)

    async def _remove(self, key: RuleKey, row: RuleRow | None) -> None:
        if row is None:
            return  # the instance went, and its rules with it
        if key.kind == "traffic":
            await self._driver.delete_traffic(row.tenant, rule_id(key.instance, "traffic", key.rule))
        else:
            await self._driver.delete_dns(row.tenant, rule_id(key.instance, "dns", key.rule))

    async def _take_refusals(self, state: Desired, result: dict[str, Any]) -> None:
        for refusal in result.get("refused", []):
            key = state.keys.get(str(refusal.get("id")))
            code = str(refusal.get("code"))
            if key is not None and code not in PASSING:
                await self._refuse(key, code)

    async def _refuse(self, key: RuleKey, code: str) -> None:
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> None:
            row = await session.get(RuleRow, (key.instance, key.kind, key.rule))
            if row is None or not row.active:
                return
            row.active, row.refusal = False, code
            row.document = {**row.document, "state": "INACTIVE"}
            row.version += 1
            subject = f"{key.instance}/{key.kind}/{key.rule}"
            await self._ledger.record(
                session, actor=self.host, action="rule.apply", subject=subject, code=code, now=now
            )

        await self._ledger.write(work)

    def _tell(self, rule: RuleKey, error: UmecError | None) -> None:
        for waiter in self._waiting.pop(rule, []):
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    def _forget(self, rule: RuleKey, waiter: asyncio.Future[None]) -> None:
        waiter.cancel()
        left = [other for other in self._waiting.get(rule, []) if other is not waiter]
        if left:
            self._waiting[rule] = left
        else:
            self._waiting.pop(rule, None)


def _warn(event: str, host: str, error: Exception) -> None:
    code = error.code if isinstance(error, UmecError) else type(error).__name__
    log.warning(event, host=host, code=code, detail=str(error))
