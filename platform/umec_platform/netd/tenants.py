"""The networks of tenants on this host: a bridge each, under control before it exists."""

import asyncio
from typing import Any

from umec_core.errors import UmecError
from umec_platform.netd import messages, network
from umec_platform.netd.dataplane import DataPlane
from umec_platform.netd.force import Force
from umec_platform.netd.instances import Instances
from umec_platform.netd.state import TenantNetwork, Wanted

__all__ = ["Tenants", "told"]


class Tenants:
    """The operations on tenants; those without a request are for whoever holds the lock of `force`."""

    def __init__(self, wanted: Wanted, force: Force, *, plane: DataPlane, instances: Instances) -> None:
        self._wanted = wanted
        self._force = force
        self._plane = plane
        self._instances = instances

    async def put_tenant(self, request: messages.TenantPut) -> dict[str, Any]:
        """Make a tenant's network."""
        async with self._force.lock:
            return told(await self._put(request.tenant, request.subnet))

    async def keep_only(self, wanted: list[messages.Tenant]) -> None:
        """Make the networks of these tenants, after removing all others with their instances."""
        names = {tenant.tenant for tenant in wanted}
        for one in self._wanted.networks:
            if one.tenant not in names:
                await self._remove(one)
        for tenant in wanted:
            await self._put(tenant.tenant, tenant.subnet)

    async def _put(self, tenant: str, subnet: str | None) -> TenantNetwork:
        planned, new = self._wanted.networks.plan(tenant, subnet)
        if new:
            # Under control before it exists.
            await asyncio.to_thread(self._plane.add_bridge, planned.bridge)
            try:
                await asyncio.to_thread(network.add_bridge, planned.bridge, planned.gateway)
            except UmecError:
                await asyncio.to_thread(network.remove_link, planned.bridge)
                await asyncio.to_thread(self._plane.remove_bridge, planned.bridge)
                raise
            self._wanted.networks.add(planned)
        return planned

    async def _remove(self, one: TenantNetwork) -> None:
        for instance in [name for name, known in self._wanted.instances.items() if known.network.tenant == one.tenant]:
            await self._instances.stop(instance)
        await asyncio.to_thread(network.remove_link, one.bridge)
        await asyncio.to_thread(self._plane.remove_bridge, one.bridge)
        self._wanted.networks.discard(one.tenant)


def told(one: TenantNetwork) -> dict[str, Any]:
    """Return a tenant's network as an answer has it."""
    return {"tenant": one.tenant, "subnet": str(one.subnet), "gateway": str(one.gateway.ip)}
