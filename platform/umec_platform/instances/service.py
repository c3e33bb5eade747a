"""Instances and the operations on them: what is asked for is written down here; `lifecycle` does it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.standing import StandingEntry, StandingView
from umec_platform.effects import Ledger
from umec_platform.errors import (
    HostFallen,
    HostForeign,
    InstanceState,
    NoHost,
    NoInstance,
    NoOperation,
    NoPackage,
    PackageState,
    StoppedMeanwhile,
)
from umec_platform.hosts.schemas import BY_RELAY
from umec_platform.packages.service import ONBOARDED
from umec_platform.standing import consequence
from umec_platform.tables.hosts import HostRow
from umec_platform.tables.instances import (
    INSTANTIATE,
    INSTANTIATED,
    NOT_INSTANTIATED,
    STARTING,
    TERMINATE,
    InstanceRow,
    OperationRow,
)
from umec_platform.tables.packages import PackageRow
from umec_platform.tables.rules import RuleRow
from umec_platform.tables.services import ServiceRow, SubscriptionRow

__all__ = [
    "Instances",
    "find_instance",
    "forget_instance",
    "place_order",
    "serves",
]


async def find_instance(session: AsyncSession, instance: str, tenant: str | None) -> InstanceRow:
    """Return an instance that the caller may see (`tenant` None is an operator); raises `NoInstance`."""
    row = await session.get(InstanceRow, instance)
    if row is None or tenant not in {None, row.tenant}:
        raise NoInstance("there is no such application instance")
    return row


async def forget_instance(session: AsyncSession, instance: str, *, until: datetime | None = None) -> None:
    """Remove services, subscriptions and rules of an instance: nothing of it outlives its termination.

    With `until`, what its program has registered since then stays: it may be quicker than we are.
    """
    for kind in (ServiceRow, SubscriptionRow):
        query = select(kind).where(kind.instance == instance)
        if until is not None:
            query = query.where(kind.created_at <= until)
        for row in await session.scalars(query):
            await session.delete(row)
    for rule in await session.scalars(select(RuleRow).where(RuleRow.instance == instance)):
        await session.delete(rule)


async def place_order(
    ledger: Ledger,
    session: AsyncSession,
    *,
    actor: str,
    row: InstanceRow,
    operation: str,
    parameters: dict[str, Any],
    now: datetime,
) -> OperationRow:
    """Write down, in the caller's transaction, that an operation is to be run on an idle instance."""
    order = OperationRow(
        id=str(uuid4()),
        tenant=row.tenant,
        instance=row.id,
        operation=operation,
        state=STARTING,
        parameters=parameters,
        confirmed=False,
        started_at=now,
        entered_at=now,
    )
    row.busy = order.id
    row.version += 1
    session.add(order)
    facts = {"operation": order.id, **parameters}
    action = f"instance.{operation.lower()}"
    await ledger.record(session, actor=actor, action=action, subject=row.id, facts=facts, now=now)
    await ledger.run_operation(session, order.id, now)
    return order


class Instances:
    """Makes, lists and removes instances, and takes orders to instantiate and terminate them."""

    def __init__(self, ledger: Ledger, view: StandingView) -> None:
        self._ledger = ledger
        self._view = view

    async def create(
        self, actor: str, *, tenant: str | None, app_d_id: str, name: str | None, description: str | None
    ) -> InstanceRow:
        """Make an instance of an onboarded package; raises `NoPackage` or `PackageState`.

        An operator (tenant None) names a descriptor that only one tenant has onboarded.
        """
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> InstanceRow:
            package = await _package_of(session, app_d_id, tenant)
            row = InstanceRow(
                id=str(uuid4()),
                tenant=package.tenant,
                package=package.id,
                name=name,
                description=description,
                state=NOT_INSTANTIATED,
                ready=False,
                version=1,
                created_at=now,
            )
            session.add(row)
            facts = {"tenant": row.tenant, "package": package.id, "appd_sha256": package.appd_sha256}
            await self._ledger.record(
                session, actor=actor, action="instance.create", subject=row.id, facts=facts, now=now
            )
            return row

        return await self._ledger.write(work)

    async def instantiate(self, actor: str, instance: str, tenant: str | None, host: str | None) -> OperationRow:
        """Order an instance to be started on a host, or on one that can take it; returns the operation.

        Raises `NoInstance`, `InstanceState`, `NoHost`, `HostForeign` or `HostFallen`.
        """
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> OperationRow:
            row = await _stopped(session, instance, tenant)
            hosts = await _hosts_for(session, host, row.tenant, self._view)
            chosen = _standing_well(hosts, tenant)
            row.host = chosen.id
            return await place_order(
                self._ledger,
                session,
                actor=actor,
                row=row,
                operation=INSTANTIATE,
                parameters={"host": chosen.id},
                now=now,
            )

        return await self._ledger.write(work)

    async def terminate(
        self, actor: str, instance: str, tenant: str | None, parameters: dict[str, Any]
    ) -> OperationRow:
        """Order an instance to be stopped; returns the operation, or the one that stops it already.

        A start under way is overtaken: it comes to nothing. Raises `NoInstance`, and `InstanceState` for one that
        neither runs nor is being started.
        """
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> OperationRow:
            row = await find_instance(session, instance, tenant)
            if row.busy is not None:
                under_way = await session.get_one(OperationRow, row.busy)
                if under_way.operation == TERMINATE:
                    return under_way
                if under_way.code is None:
                    under_way.code, under_way.detail = StoppedMeanwhile.code, "the instance was terminated meanwhile"
            elif row.state != INSTANTIATED:
                raise InstanceState("the instance is not instantiated, nor on the way to it")
            return await place_order(
                self._ledger, session, actor=actor, row=row, operation=TERMINATE, parameters=parameters, now=now
            )

        return await self._ledger.write(work)

    async def remove(self, actor: str, instance: str, tenant: str | None) -> None:
        """Remove an instance that is not instantiated; raises `NoInstance` or `InstanceState`."""
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> None:
            row = await _stopped(session, instance, tenant)
            await forget_instance(session, row.id)
            await session.flush()
            await session.delete(row)
            await self._ledger.record(session, actor=actor, action="instance.remove", subject=instance, now=now)

        await self._ledger.write(work)

    async def get(self, instance: str, tenant: str | None) -> tuple[InstanceRow, PackageRow]:
        """Return an instance with its package; raises `NoInstance`."""
        async with self._ledger.store.read() as session:
            row = await find_instance(session, instance, tenant)
            return row, await session.get_one(PackageRow, row.package)

    async def host_of(self, instance: str, tenant: str | None) -> str:
        """Return the host of an instance; raises `NoInstance`, or `InstanceState` for one that has none."""
        async with self._ledger.store.read() as session:
            row = await find_instance(session, instance, tenant)
        if row.host is None:
            raise InstanceState("the instance is on no host")
        return row.host

    async def list(self, tenant: str | None) -> Sequence[tuple[InstanceRow, PackageRow]]:
        """Return the instances of a tenant (None: of all) with their packages, oldest first."""
        async with self._ledger.store.read() as session:
            query = select(InstanceRow, PackageRow).join(PackageRow, InstanceRow.package == PackageRow.id)
            if tenant is not None:
                query = query.where(InstanceRow.tenant == tenant)
            rows = await session.execute(query.order_by(InstanceRow.created_at, InstanceRow.id))
            return [(row[0], row[1]) for row in rows]

    async def operation(self, operation: str, tenant: str | None) -> OperationRow:
        """Return an operation; raises `NoOperation`."""
        async with self._ledger.store.read() as session:
            row = await session.get(OperationRow, operation)
            if row is None or tenant not in {None, row.tenant}:
                raise NoOperation("there is no such operation")
            return row

    async def operations(self, tenant: str | None) -> Sequence[OperationRow]:
        """Return the operations of a tenant (None: of all), oldest first."""
        async with self._ledger.store.read() as session:
            query = select(OperationRow).order_by(OperationRow.started_at, OperationRow.id)
            if tenant is not None:
                query = query.where(OperationRow.tenant == tenant)
            return list(await session.scalars(query))


async def _package_of(session: AsyncSession, app_d_id: str, tenant: str | None) -> PackageRow:
    query = select(PackageRow).where(PackageRow.app_d_id == app_d_id, PackageRow.state == ONBOARDED)
    if tenant is not None:
        query = query.where(PackageRow.tenant == tenant)
    found = list(await session.scalars(query))
    if not found:
        raise NoPackage("no onboarded package has this appDId", advice="`umec app onboard` makes one.")
    if len(found) > 1:
        raise PackageState("packages of several tenants have this appDId", advice="Name the tenant.")
    return found[0]


async def _stopped(session: AsyncSession, instance: str, tenant: str | None) -> InstanceRow:
    row = await find_instance(session, instance, tenant)
    if row.busy is not None:
        raise InstanceState("an operation on the instance is running")
    if row.state != NOT_INSTANTIATED:
        raise InstanceState(f"the instance is {row.state}; only one that is {NOT_INSTANTIATED} can do this")
    return row


def serves(host: HostRow, node: StandingEntry | None, tenant: str) -> bool:
    """Say whether a host may take instances of a tenant.

    A machine of the site takes those of all, apart from each other. One that is reached by the relay of its node
    fetches images by that node's token: those of the node's tenant, or of all where the node belongs to none.
    """
    by_relay = host.netd.startswith(BY_RELAY)
    return not by_relay or node is None or node.tenant in {None, tenant}


async def _hosts_for(session: AsyncSession, host: str | None, tenant: str, view: StandingView) -> Sequence[HostRow]:
    """Return the hosts that may take instances of a tenant: that one, or all. Raises `NoHost` or `HostForeign`."""
    hosts = list(await session.scalars(select(HostRow).order_by(HostRow.id)))
    if host is not None:
        hosts = [row for row in hosts if row.id == host]
    if not hosts:
        raise NoHost("there is no such host" if host is not None else "there is no host", advice="`umec host add`.")
    nodes = view.entries
    serving = [row for row in hosts if serves(row, nodes.get(row.node), tenant)]
    if not serving:
        raise HostForeign("the host is a node of another tenant" if host is not None else "no host serves this tenant")
    return serving


def _standing_well(hosts: Sequence[HostRow], tenant: str | None) -> HostRow:
    """Return a host that can take an instance. Which node is worth what is said to an operator (no tenant) only."""
    able = [row for row in hosts if consequence(row.standing).admits]
    if not able:
        if tenant is not None:
            raise HostFallen("no host that may be used is trusted at this moment", advice="Ask the operator.")
        found = ", ".join(f"node {row.node} is {row.standing or 'not known to the verifier'}" for row in hosts)
        raise HostFallen(found, advice="`umec node explain` says what is wrong with a node.")
    return able[0]
