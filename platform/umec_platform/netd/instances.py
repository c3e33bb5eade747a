"""Instances: started when a decision is for exactly them, connected last, cut off first."""

import asyncio
import contextlib
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address
from typing import Any, Final

import structlog

from umec_core.clock import Clock
from umec_platform.netd import messages, network
from umec_platform.netd.containers import Containers
from umec_platform.netd.decisions import verify_decision
from umec_platform.netd.errors import InstanceExists, InstanceStopped, SubnetRefused
from umec_platform.netd.force import Force
from umec_platform.netd.leases import Lease
from umec_platform.netd.rules import Rules
from umec_platform.netd.settings import NetdSettings
from umec_platform.netd.starts import measure_start
from umec_platform.netd.state import Instance, TenantNetwork, Wanted

__all__ = ["Instances"]

_log = structlog.get_logger(__name__)


class _Start:
    """A start under way: whoever stops it says so, and waits until it is over."""

    def __init__(self) -> None:
        self.stopped = False
        self.over: Final = asyncio.Event()

    def check(self) -> None:
        """Raise `InstanceStopped` if somebody has stopped it."""
        if self.stopped:
            raise InstanceStopped("the instance was stopped while it was being started")


class Instances:
    """The operations on instances; those without a request are for whoever holds the lock of `force`."""

    def __init__(
        self,
        settings: NetdSettings,
        wanted: Wanted,
        lease: Lease,
        force: Force,
        *,
        containers: Containers,
        rules: Rules,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._wanted = wanted
        self._lease = lease
        self._force = force
        self._containers = containers
        self._rules = rules
        self._clock = clock
        self._starting: dict[str, _Start] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def start_instance(self, request: messages.InstanceStart) -> dict[str, Any]:
        """Start an instance.

        1. The node stands, without reserve. 2. The decision is for exactly this, and the start is measured while it
        is. 3. The image is the decision's. 4. The node still stands when the container is there, and nobody has stopped
        the instance meanwhile; only then 5. it is connected, and 6. its program begins.
        """
        spec = request.spec
        self._lease.check_admission(self._clock())  # 1
        self._wanted.networks.get(spec.tenant)
        settings = self._settings
        admitted = verify_decision(  # 2
            spec,
            keys=settings.decision_keys,
            issuer=settings.decision_issuer,
            node=settings.terms.node,
            now=self._clock(),
        )
        with self._reserved(spec.instance) as start:
            if settings.agent is not None:
                await measure_start(settings.agent, admitted, spec.decision)
            bundle = await self._containers.prepare(spec, admitted)  # 3, without the lock: large images take a while
            async with self._force.lock:
                try:
                    self._lease.check_admission(self._clock())  # 4
                    start.check()
                    one = self._wanted.networks.get(spec.tenant)
                    container = await self._containers.create(bundle)
                except BaseException:
                    await self._containers.remove(spec.instance)
                    raise
                instance = Instance(spec.instance, one, self._free_address(one), container)
                self._wanted.instances[spec.instance] = instance
                try:
                    await self._connect(instance)  # 5
                    await self._containers.start(container)  # 6
                    container.follow(self._on_exit)
                except BaseException:
                    await self.stop(spec.instance)
                    raise
        return {"instance": spec.instance, "address": str(instance.address), "pid": container.pid}

    async def stop_instance(self, request: messages.InstanceStop) -> dict[str, Any]:
        """Stop an instance; a start of it that is under way comes to nothing, and is over when this returns."""
        start = self._starting.get(request.instance)
        if start is not None:
            start.stopped = True
            await start.over.wait()
        async with self._force.lock:
            return {"stopped": await self.stop(request.instance) or start is not None}

    async def instance_log(self, request: messages.InstanceLog) -> dict[str, Any]:
        """Return the end of what an instance wrote, whether it runs or not."""
        kept = await asyncio.to_thread(self._containers.logs.of, request.instance)
        return {"instance": request.instance, "text": await asyncio.to_thread(kept.tail, request.lines)}

    async def keep_only(self, wanted: Collection[str]) -> None:
        """Stop all other instances, have starts of others come to nothing, and forget the logs of others."""
        for name in set(self._wanted.instances) - set(wanted):
            await self.stop(name)
        for name in set(self._starting) - set(wanted):
            self._starting[name].stopped = True
        kept = {*wanted, *self._starting}
        await asyncio.to_thread(self._containers.logs.keep, kept)

    async def stop(self, name: str) -> bool:
        """Cut off, withdraw its rules and names, kill, remove: each is tried even if another fails."""
        known = self._wanted.instances.pop(name, None)
        if known is None:
            return False
        async with contextlib.AsyncExitStack() as steps:
            steps.callback(known.container.release)
            steps.push_async_callback(self._containers.remove, name)
            steps.push_async_callback(asyncio.to_thread, network.remove_link, known.network.veth(known.address))
            steps.push_async_callback(self._rules.drop_names_of, known)
            steps.push_async_callback(self._rules.drop_traffic_of, known)
            await self._force.expel(known)
        return True

    async def close(self) -> None:
        """Let go of the instances that have ended; before `stop` of all."""
        for task in list(self._ending):
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)

    @contextlib.contextmanager
    def _reserved(self, instance: str) -> Iterator[_Start]:
        if instance in self._wanted.instances or instance in self._starting:
            raise InstanceExists(f"instance {instance} is here already")
        start = self._starting[instance] = _Start()
        try:
            yield start
        finally:
            del self._starting[instance]
            start.over.set()

    def _free_address(self, one: TenantNetwork) -> IPv4Address:
        taken = {known.address for known in self._wanted.instances.values()}
        for address in list(one.subnet.hosts())[1:]:
            if address not in taken:
                return address
        raise SubnetRefused(f"the subnet {one.subnet} has no address left")

    async def _connect(self, instance: Instance) -> None:
        one = instance.network
        await asyncio.to_thread(
            network.plug,
            instance.container.pid,
            veth=one.veth(instance.address),
            bridge=one.bridge,
            address=instance.address,
            subnet=one.subnet,
        )
        await self._force.admit(instance)

    def _on_exit(self, instance: str) -> None:
        task = asyncio.create_task(self._expel(instance))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _expel(self, instance: str) -> None:
        async with self._force.lock:
            known = self._wanted.instances.get(instance)
            if known is not None and not known.container.running:
                _log.warning("instance ended", instance=instance, tenant=known.network.tenant)
                await self._force.expel(known)
