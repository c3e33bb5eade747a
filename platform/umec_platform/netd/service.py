"""netd as one object: its life, what it tells, and the operations that set more than one kind of thing."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any, Final

import structlog

from umec_core.clock import Clock
from umec_platform.netd import messages, network
from umec_platform.netd.containers import Containers
from umec_platform.netd.dataplane import DataPlane
from umec_platform.netd.errors import SubnetRefused
from umec_platform.netd.force import Force
from umec_platform.netd.host import look
from umec_platform.netd.instances import Instances
from umec_platform.netd.leases import Lease
from umec_platform.netd.nft import Nftables
from umec_platform.netd.resolver import Resolver
from umec_platform.netd.rulebook import RuleBook
from umec_platform.netd.rules import Rules
from umec_platform.netd.settings import NetdSettings
from umec_platform.netd.state import NameBook, TenantNetworks, Wanted
from umec_platform.netd.table import Plan
from umec_platform.netd.tenants import Tenants, told

__all__ = ["NetdService", "open_service"]

_log = structlog.get_logger(__name__)


class NetdService:
    """One method an operation, here or in `tenants`, `rules` and `instances`, named as in `messages`.

    `open_service` makes it, and cleans up after it.
    """

    def __init__(self, settings: NetdSettings, clock: Clock, plane: DataPlane) -> None:
        self._settings = settings
        self._clock = clock
        self._plane = plane
        self._host = look()
        self._lease = Lease(settings.terms, settings.state / "standing.json")
        self._resolver = Resolver(settings.state / "unbound", settings.access_address.ip)
        self._containers = Containers(settings.state, self._host, settings.access_address.ip)
        self._forwarding = network.Forwarding()
        self._began = secrets.token_hex(8)
        self._watching: asyncio.Task[None] | None = None
        wanted = self._wanted = Wanted(TenantNetworks(settings.pool), RuleBook(), NameBook(), {})
        force = self._force = Force(wanted, self._lease, plane=plane, resolver=self._resolver, clock=clock)
        self.rules: Final = Rules(settings, wanted, self._lease, force, clock)
        self.instances: Final = Instances(
            settings, wanted, self._lease, force, containers=self._containers, rules=self.rules, clock=clock
        )
        self.tenants: Final = Tenants(wanted, force, plane=plane, instances=self.instances)

    async def open(self) -> None:
        """Begin with nothing in force; raises if the host cannot do what is needed."""
        settings = self._settings
        if settings.access_address.ip in settings.pool:
            raise SubnetRefused(f"the access address {settings.access_address} lies in the pool {settings.pool}")
        await asyncio.to_thread(network.check_access, settings.access[0], settings.access_address)
        if not (self._host.mapped or self._host.cgroups):
            advice = "enter a network with `nsenter --net`: `ip netns exec` hides the control groups"
            _log.warning("no control groups here, so root cannot start containers", advice=advice)
        await self._containers.open()
        left = await asyncio.to_thread(network.sweep)
        if left:
            _log.warning("interfaces left behind were removed", names=left)
        await asyncio.to_thread(self._plane.install)
        self._forwarding.enable()
        await self._resolver.start()
        self._lease.recall()
        await self._force.settle()
        self._watching = asyncio.create_task(self._force.watch())

    async def close(self) -> None:
        """Leave nothing behind: each step is tried even if another fails."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self.instances.close()
        async with self._force.lock, contextlib.AsyncExitStack() as steps:
            steps.callback(self._forwarding.restore)
            steps.push_async_callback(asyncio.to_thread, self._plane.remove)
            steps.push_async_callback(asyncio.to_thread, network.sweep)
            steps.push_async_callback(self._containers.close)
            steps.push_async_callback(self._resolver.stop)
            for name in list(self._wanted.instances):
                steps.push_async_callback(self.instances.stop, name)
            self._force.end()

    async def status(self, _: messages.Status) -> dict[str, Any]:
        """Tell what is in force."""
        wanted = self._wanted
        return {
            "node": self._settings.terms.node,
            "began": self._began,
            **self._standing(),
            "tenants": [told(one) for one in wanted.networks],
            "instances": [
                {
                    "instance": one.name,
                    "tenant": one.network.tenant,
                    "address": str(one.address),
                    "pid": one.container.pid,
                    "running": one.container.running,
                }
                for one in wanted.instances.values()
            ],
            "traffic": len(wanted.rules),
            "dns": len(wanted.names),
            "resolver_pid": self._resolver.pid,
            "mapped_root": self._host.mapped,
            "limits": self._host.cgroups,
        }

    async def standing(self, request: messages.Standing) -> dict[str, Any]:
        """Renew or end the lease."""
        async with self._force.lock:
            self._lease.renew(request.statement, self._clock())
            await self._force.settle()
        self._force.look_again()
        return self._standing()

    def _standing(self) -> dict[str, Any]:
        entry, ends = self._lease.entry, self._lease.ends
        return {
            "in_force": self._force.holds,
            "standing": None if entry is None else entry.standing.value,
            "generation": None if entry is None else entry.generation,
            "lease_ends": None if ends is None else ends.isoformat().replace("+00:00", "Z"),
        }

    async def sync(self, request: messages.Sync) -> dict[str, Any]:
        """Set the whole desired state."""
        async with self._force.lock:
            await self.tenants.keep_only(request.tenants)
            if request.instances is not None:
                await self.instances.keep_only(request.instances)
            refused = self.rules.take_over(request)
            held = self._force.holds
            await self._force.settle()  # the lease may have ended meanwhile: then nothing new comes into force
            if held and self._force.holds:
                await self._force.enforce()
            return {
                "traffic": len(self._wanted.rules),
                "dns": len(self._wanted.names),
                "refused": [one.model_dump() for one in refused],
                "in_force": self._force.holds,
            }


@contextlib.asynccontextmanager
async def open_service(settings: NetdSettings, clock: Clock) -> AsyncIterator[NetdService]:
    """Open netd in the present network namespace, and leave nothing behind at the end."""
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    plan = Plan(settings.pool, settings.access, settings.access_address.ip, settings.services)
    with Nftables() as nft:
        service = NetdService(settings, clock, DataPlane(nft, plan))
        with network.namespace_lock():
            try:
                await service.open()
                yield service
            finally:
                await service.close()
