"""Tenants: made by an operator, with grants that no two tenants share."""

from collections.abc import Sequence
from ipaddress import ip_network

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_platform.effects import Ledger
from umec_platform.errors import AlreadyThere, GrantOverlaps, NoTenant
from umec_platform.tables.tenants import TenantRow
from umec_platform.tenants.schemas import NewTenant

__all__ = ["Tenants", "find_tenant"]


async def find_tenant(session: AsyncSession, tenant: str) -> TenantRow:
    """Return the row of a tenant; raises `NoTenant`."""
    row = await session.get(TenantRow, tenant)
    if row is None:
        raise NoTenant("there is no such tenant", advice="`umec tenant add` makes one.")
    return row


class Tenants:
    """Makes and lists tenants."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def create(self, actor: str, wish: NewTenant) -> TenantRow:
        """Make a tenant; raises `AlreadyThere`, or `GrantOverlaps` if another one holds some of its grants."""
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> TenantRow:
            others = list(await session.scalars(select(TenantRow)))
            if any(other.id == wish.id for other in others):
                raise AlreadyThere(f"tenant {wish.id} exists already")
            row = TenantRow(
                id=wish.id, name=wish.name, addresses=wish.addresses, domains=wish.granted_domains(), created_at=now
            )
            for other in others:
                _check_apart(row, other)
            session.add(row)
            facts = {"addresses": row.addresses, "domains": row.domains}
            await self._ledger.record(
                session, actor=actor, action="tenant.create", subject=row.id, facts=facts, now=now
            )
            return row

        return await self._ledger.write(work)

    async def list(self) -> Sequence[TenantRow]:
        """Return all tenants, by id."""
        async with self._ledger.store.read() as session:
            return list(await session.scalars(select(TenantRow).order_by(TenantRow.id)))


def _check_apart(new: TenantRow, other: TenantRow) -> None:
    for mine in new.addresses:
        if any(ip_network(mine).overlaps(ip_network(theirs)) for theirs in other.addresses):
            raise GrantOverlaps(f"{mine} overlaps with what tenant {other.id} holds")
    for name in new.domains:
        if any(_nested(name, theirs) for theirs in other.domains):
            raise GrantOverlaps(f"{name} overlaps with what tenant {other.id} holds")


def _nested(one: str, two: str) -> bool:
    return one == two or one.endswith(f".{two}") or two.endswith(f".{one}")
