"""Brings one host to its desired state and keeps its lease alive: retried for ever, never in another host's way.

1. At the start, after any failure, after a change of standing and once a minute: the whole desired state (`sync`), as
   it is once it is known what the host still runs (3).
2. In between, one rule at a time, as it is now in the rows.
3. Every few seconds the host is asked what it is and what it runs: one that began anew is set as a whole, and instances
   that it should run and does not are started again (`instances.recovery`).
4. A rule that the host refuses for what it says is set INACTIVE, with the reason, unless its row has changed since.
5. Whoever waits for a rule waits for a version of its row: only what came of reading that version, or a later one, is
   told.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.errors import Kind, UmecError
from umec_core.standing import StandingRollback
from umec_platform.effects import Ledger, RuleKey
from umec_platform.errors import HostFallen, HostSilent
from umec_platform.hosts.confines import NOT_YET
from umec_platform.hosts.desired import Desired, desired_rule, desired_state
from umec_platform.hosts.ports import HostDriver, Recoverer, StandingSource
from umec_platform.netd.errors import RemoteRefusal
from umec_platform.netd.messages import TrafficRule
from umec_platform.rules.translate import rule_id
from umec_platform.tables.rules import RuleRow

__all__ = ["LOOK_EVERY", "LOOK_FAR_EVERY", "HostWorker", "Waiter", "relay_standing"]

RELAY_EVERY: Final = 20.0
"""Seconds between relays of the standing: three may be lost before a lease of 90 s ends."""

SYNC_EVERY: Final = 60.0
"""Seconds after which a host is compared as a whole, whatever happened: it may have been changed unnoticed."""

LOOK_EVERY: Final = 2.0
"""Seconds between looks at what a host runs: one exchange on a socket of this machine."""

LOOK_FAR_EVERY: Final = 10.0
"""The same where each look is two requests of a node over its radio link."""

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
"""Seconds between attempts on a host that does not answer; doubled after each."""

PASSING: Final = frozenset(
    {"standing-fallen", "standing-degraded", "standing-lapsed", "lease-expired", "tenant-unknown", HostFallen.code}
)
"""Refusals that say nothing about the rule itself."""

log = structlog.get_logger("umec.host")


async def relay_standing(source: StandingSource | None, driver: HostDriver, node: str) -> None:
    """Hand the newest signed standing of a node to its host; raises what either side raises.

    A host that has seen a newer one (two relays crossed each other) is given the newest once more.
    """
    if source is None:
        return
    try:
        await driver.standing(await source.standings(after=0, wait=0, node=node))
    except UmecError as error:
        if error.code != StandingRollback.code:
            raise
        await driver.standing(await source.standings(after=0, wait=0, node=node))


class Waiter:
    """Somebody who changes a rule and waits for its host: only what came of that change, or a later one, counts."""

    def __init__(self) -> None:
        self._version: int | None = None
        self._told: tuple[int, UmecError | None] | None = None
        self._done = asyncio.Event()

    def expect(self, version: int) -> None:
        """Wait for what comes of this version of the row; before this is called nothing is enough."""
        self._version = version
        self._settle()

    def tell(self, version: int, error: UmecError | None) -> None:
        """Take note of what came of a version: None if the host has taken it."""
        if not self._done.is_set():
            self._told = (version, error)
            self._settle()

    async def wait(self, seconds: float) -> None:
        """Return when the host has taken the change; raises its refusal, and `HostSilent` after `seconds`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._done.wait(), seconds)
        told = self._told if self._done.is_set() else None  # else it is of an earlier version
        if told is None:
            raise HostSilent(
                "the host has not judged the rule in time; it does when it answers",
                advice="Send the same again, without If-Match: the wish is kept, and waited for once more.",
            )
        if told[1] is not None:
            raise told[1]

    def _settle(self) -> None:
        if self._version is not None and self._told is not None and self._told[0] >= self._version:
            self._done.set()


class HostWorker:
    """The one who talks to a host about its state."""

    def __init__(
        self,
        host: str,
        node: str,
        *,
        driver: HostDriver,
        ledger: Ledger,
        source: StandingSource | None,
        recovery: Recoverer,
        whole: asyncio.Lock,
        look_every: float = LOOK_EVERY,
    ) -> None:
        """`whole` is held from reading the desired state until the host has it; `look_every` is in seconds."""
        self._whole = whole
        self._look_every = look_every
        self.host: Final = host
        self._node = node
        self._driver = driver
        self._ledger = ledger
        self._source = source
        self._recovery = recovery
        self._wishes: asyncio.Queue[RuleKey | None] = asyncio.Queue()
        self._relay_now = asyncio.Event()
        self._waiting: defaultdict[RuleKey, set[Waiter]] = defaultdict(set)

    def look_at(self, rule: RuleKey | None) -> None:
        """Have one rule, or the whole host with its standing, looked at soon."""
        self._wishes.put_nowait(rule)
        if rule is None:
            self._relay_now.set()

    @contextlib.asynccontextmanager
    async def settled(self, rule: RuleKey, *, seconds: float) -> AsyncIterator[Waiter]:
        """Leave the block when the host has taken what was written in it; raises as `Waiter.wait`.

        The block tells the waiter which version of the rule's row it wrote.
        """
        waiter = Waiter()
        self._waiting[rule].add(waiter)
        try:
            yield waiter
            await waiter.wait(seconds)
        finally:
            self._waiting[rule].discard(waiter)
            if not self._waiting[rule]:
                del self._waiting[rule]

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
        async with self._whole:
            async with self._ledger.store.read() as session:
                state = await desired_state(session, self.host)
            result = await self._driver.sync(
                tenants=state.tenants, traffic=state.traffic, dns=state.dns, instances=state.instances
            )
        refused = state.refused | _refusals(state, result)
        for key, error in refused.items():
            if error.code not in PASSING:
                await self._refuse(key, state.versions[key], error.code)
            self._tell(key, state.versions[key], error)
        for key, version in state.versions.items():
            if key not in refused:
                self._tell(key, version, None)

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
                look = loop.time() + self._look_every
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
        """Bring one rule to what the rows say (2, 4, 5); raises if the host does not answer."""
        async with self._ledger.store.read() as session:
            row = await session.get(RuleRow, (key.instance, key.kind, key.rule))
            if row is None:
                return  # the instance went, and its rules with it
            refused, rule = None, None
            try:
                rule = await desired_rule(session, key)
            except UmecError as error:
                refused = error
        try:
            if refused is not None:
                raise refused
            if rule is None:
                await self._remove(key, row)
                if row.active:
                    raise HostFallen(NOT_YET)
            elif isinstance(rule, TrafficRule):
                await self._driver.put_traffic(rule)
            else:
                await self._driver.put_dns(rule)
        except UmecError as error:
            if error.kind is Kind.UNAVAILABLE:
                raise
            if error.code not in PASSING:
                await self._refuse(key, row.version, error.code)
            self._tell(key, row.version, error)
        else:
            self._tell(key, row.version, None)

    async def _remove(self, key: RuleKey, row: RuleRow) -> None:
        if key.kind == "traffic":
            await self._driver.delete_traffic(row.tenant, rule_id(key.instance, "traffic", key.rule))
        else:
            await self._driver.delete_dns(row.tenant, rule_id(key.instance, "dns", key.rule))

    async def _refuse(self, key: RuleKey, version: int, code: str) -> None:
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> None:
            row = await session.get(RuleRow, (key.instance, key.kind, key.rule))
            if row is None or not row.active or row.version != version:
                return
            row.active, row.refusal = False, code
            row.document = {**row.document, "state": "INACTIVE"}
            row.version += 1
            subject = f"{key.instance}/{key.kind}/{key.rule}"
            await self._ledger.record(
                session, actor=self.host, action="rule.apply", subject=subject, code=code, now=now
            )

        await self._ledger.write(work)

    def _tell(self, rule: RuleKey, version: int, error: UmecError | None) -> None:
        for waiter in self._waiting.get(rule, ()):
            waiter.tell(version, error)


def _refusals(state: Desired, result: dict[str, Any]) -> dict[RuleKey, UmecError]:
    """Return what a host refused of a desired state, by our names of the rules."""
    refusals: dict[RuleKey, UmecError] = {}
    for refusal in result.get("refused", []):
        key = state.keys.get(str(refusal.get("id")))
        if key is not None:
            detail = str(refusal.get("detail") or "the host refuses the rule")
            refusals[key] = RemoteRefusal(str(refusal.get("code")), refusal.get("sort"), detail)
    return refusals


def _warn(event: str, host: str, error: Exception) -> None:
    code = error.code if isinstance(error, UmecError) else type(error).__name__
    log.warning(event, host=host, code=code, detail=str(error))
