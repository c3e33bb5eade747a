"""What is wanted is in force while the node's lease holds, as a whole, and withdrawn when that ends."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from typing import Final

import structlog

from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_platform.netd import network
from umec_platform.netd.boxes import CompiledRule
from umec_platform.netd.dataplane import DataPlane
from umec_platform.netd.leases import Lease
from umec_platform.netd.messages import DnsRule
from umec_platform.netd.resolver import Resolver
from umec_platform.netd.state import Instance, Wanted, record_of

__all__ = ["Force"]

LONGEST_NAP: Final = 5.0
"""Seconds between looks at the lease, however long it still holds: the clock may have been set."""

SHORTEST_NAP: Final = 0.05

RETRY_NAP: Final = 0.5
"""Seconds between attempts to bring into force, or to withdraw, what did not succeed as a whole."""

_log = structlog.get_logger(__name__)


class Force:
    """Puts what is wanted into kernel and resolver. Whoever calls it holds `lock`.

    While nothing is in force, changes have no effect outside: they take effect with all the rest.
    """

    def __init__(self, wanted: Wanted, lease: Lease, *, plane: DataPlane, resolver: Resolver, clock: Clock) -> None:
        self.lock: Final = asyncio.Lock()
        self._wanted = wanted
        self._lease = lease
        self._plane = plane
        self._resolver = resolver
        self._clock = clock
        self._holds = False
        self._unsettled = False
        self._renewed = asyncio.Event()

    @property
    def holds(self) -> bool:
        """Whether all that is wanted is in force."""
        return self._holds

    async def watch(self) -> None:
        """Settle when the lease ends, when something is to be tried again, and every few seconds, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._renewed.wait(), self._nap())
            self._renewed.clear()
            try:
                async with self.lock:
                    await self.settle()
            except (UmecError, OSError) as error:
                _log.exception("the host is not as its lease says, it is tried again", reason=str(error))

    def _nap(self) -> float:
        if self._unsettled:
            return RETRY_NAP
        ends = self._lease.ends
        remaining = LONGEST_NAP if ends is None else (ends - self._clock()).total_seconds()
        if remaining <= 0 and not self._holds:
            return LONGEST_NAP
        return min(max(remaining, SHORTEST_NAP), LONGEST_NAP)

    def look_again(self) -> None:
        """Have `watch` settle now."""
        self._renewed.set()

    async def settle(self) -> None:
        """Bring what is wanted into force, or withdraw it, as the lease says."""
        try:
            self._lease.check(self._clock())
        except UmecError as reason:
            if self._holds or self._unsettled:
                _log.warning("node fell, everything is withdrawn", code=reason.code, detail=reason.detail)
                await self._withdraw()
            return
        if not self._holds:
            await self.enforce()
            rules, names = len(self._wanted.rules), len(self._wanted.names)
            _log.info("node stands, everything is in force", rules=rules, names=names)

    async def enforce(self) -> None:
        """Rules, names and links: in force is what holds as a whole, and what does not is tried again."""
        self._holds, self._unsettled = False, True
        live = [one.live for one in self._wanted.instances.values() if one.container.running]
        await asyncio.to_thread(self._plane.replace, list(self._wanted.rules), live)
        await self._resolver.replace(self._wanted.names.records())
        await self._plug_all(plugged=True)
        self._holds, self._unsettled = True, False

    async def _withdraw(self) -> None:
        """Rules first: they are one batch. The other effects are tried even if one fails."""
        self._holds, self._unsettled = False, True
        async with contextlib.AsyncExitStack() as steps:
            steps.push_async_callback(self._plug_all, plugged=False)
            steps.push_async_callback(self._resolver.replace, [])
            await asyncio.to_thread(self._plane.replace, [], [])
        self._unsettled = False

    async def _plug_all(self, *, plugged: bool) -> None:
        for one in self._wanted.instances.values():
            if one.container.running:
                await asyncio.to_thread(network.set_plugged, one.network.veth(one.address), plugged=plugged)

    def end(self) -> None:
        """Nothing is in force any more: netd ends."""
        self._holds = False

    async def change_rules(self, *, add: Iterable[CompiledRule] = (), delete: Iterable[CompiledRule] = ()) -> None:
        """Have the kernel follow a change of rules."""
        if self._holds:
            await asyncio.to_thread(self._plane.change, add=add, delete=delete)

    async def put_name(self, rule: DnsRule, before: DnsRule | None) -> None:
        """Have the resolver serve a name instead of the one that the same rule was about."""
        if not self._holds:
            return
        with self._or_all_anew():
            await self._resolver.put(record_of(rule))
            if before is not None and (before.name, before.kind) != (rule.name, rule.kind):
                await self._resolver.remove(before.name, before.kind)

    async def remove_name(self, rule: DnsRule) -> None:
        """Have the resolver serve a name no more."""
        if self._holds:
            with self._or_all_anew():
                await self._resolver.remove(rule.name, rule.kind)

    async def admit(self, instance: Instance) -> None:
        """Let the packets of an instance through, as far as rules allow."""
        if self._holds:
            await asyncio.to_thread(self._plane.admit, *instance.live)
            await asyncio.to_thread(network.set_plugged, instance.network.veth(instance.address), plugged=True)

    async def expel(self, instance: Instance) -> None:
        """Cut an instance off, in force or not."""
        await asyncio.to_thread(self._plane.expel, *instance.live)

    @contextlib.contextmanager
    def _or_all_anew(self) -> Iterator[None]:
        """If a change of names fails, what is wanted is brought into force as a whole, soon."""
        try:
            yield
        except BaseException:
            self._holds, self._unsettled = False, True
            self._renewed.set()
            raise
