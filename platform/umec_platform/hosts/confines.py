"""What the rules of instances may touch, as the rows are now."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_platform.rules.confine import Confines
from umec_platform.tables.hosts import NetworkRow
from umec_platform.tables.instances import InstanceRow
from umec_platform.tables.tenants import TenantRow

__all__ = ["NOT_YET", "all_confines", "confines_of"]

NOT_YET: Final = "the rule takes effect when its node stands and its instance runs"


async def confines_of(session: AsyncSession, row: InstanceRow) -> Confines:
    """Return what the rules of an instance may touch; KeyError for one that has no address."""
    networks = await session.scalars(
        select(NetworkRow).where(NetworkRow.host == row.host, NetworkRow.tenant == row.tenant)
    )
    instances = await session.scalars(
        select(InstanceRow).where(InstanceRow.host == row.host, InstanceRow.tenant == row.tenant)
    )
    return (await all_confines(session, list(networks), list(instances)))[row.id]


async def all_confines(
    session: AsyncSession, networks: Iterable[NetworkRow], instances: Iterable[InstanceRow]
) -> dict[str, Confines]:
    """Return what the rules of each instance that has an address may touch."""
    subnets = {network.tenant: ip_network(network.subnet) for network in networks}
    placed = [(row, ip_address(row.address)) for row in instances if row.address is not None]
    tenants = {row.id: row for row in await session.scalars(select(TenantRow).where(TenantRow.id.in_(subnets)))}
    found = {}
    for row, address in placed:
        tenant = tenants.get(row.tenant)
        if tenant is None or address.version != 4:
            continue
        found[row.id] = Confines(
            tenant=row.tenant,
            instance=row.id,
            own=address,
            siblings=frozenset(other for sibling, other in placed if sibling.tenant == row.tenant),
            networks=(subnets[row.tenant], *(ip_network(text) for text in tenant.addresses)),
            domains=tuple(tenant.domains),
        )
    return found
