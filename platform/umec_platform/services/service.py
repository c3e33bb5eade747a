"""The registry of services: an application registers its own, and finds those of its tenant."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NoReturn, TypeVar
from uuid import uuid4

from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.errors import Conflict, Invalid, Kind
from umec_platform.effects import Ledger
from umec_platform.errors import (
    EtagDiffers,
    HostFallen,
    InstanceState,
    NoInstance,
    NoService,
    NoSubscription,
    NoTransport,
    PlatformError,
    ServiceUndeclared,
    SubscriptionUnsupported,
)
from umec_platform.packages.appd import AppD
from umec_platform.services.schemas import ServiceInput, ServiceState
from umec_platform.services.view import MARKED
from umec_platform.standing import consequence
from umec_platform.tables.hosts import HostRow
from umec_platform.tables.instances import INSTANTIATED, InstanceRow
from umec_platform.tables.packages import PackageRow
from umec_platform.tables.services import ServiceRow, SubscriptionRow

__all__ = ["MAX_SERVICES", "Services", "Subscriptions"]

Q = TypeVar("Q", bound=Select[*tuple[Any, ...]])

MAX_SERVICES: Final = 256
"""Services of one instance: a faulty loop in one application must not fill the registry."""

DEFAULT_INTERVAL: Final = 30
SHORTEST_INTERVAL: Final = 5
LONGEST_INTERVAL: Final = 3600
"""Seconds between heartbeats that the platform asks for."""


class ServiceInvalid(PlatformError, Invalid):
    """A description contradicts the resource that it is for."""

    code = "service-invalid"


class TooMany(PlatformError, Conflict):
    """The instance has as many of these as it may have."""

    code = "too-many"
    kind = Kind.TOO_MANY


class Services:
    """Registers, changes and finds services."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def register(self, actor: str, instance: str, wish: ServiceInput) -> ServiceRow:
        """Register a service; raises `ServiceInvalid`, `NoTransport`, `NoInstance`, `InstanceState`, `HostFallen`.

        And `ServiceUndeclared`, if the descriptor names the services that are produced, and not this one.
        """
        now = self._ledger.clock()
        if wish.ser_instance_id is not None or wish.state is ServiceState.SUSPENDED:
            raise ServiceInvalid("serInstanceId is given by the platform, and so is the state SUSPENDED")
        _check_transport(wish)

        async def work(session: AsyncSession) -> ServiceRow:
            owner = await _running(session, instance)
            await _check_declared(session, owner, wish)
            host = await session.get_one(HostRow, owner.host)
            if not consequence(host.standing).changes:
                raise HostFallen(f"node {host.node} is {host.standing}: no service is registered on it")
            if (await session.scalar(_count(ServiceRow, instance)) or 0) >= MAX_SERVICES:
                raise TooMany(f"the instance has {MAX_SERVICES} services")
            row = ServiceRow(
                id=str(uuid4()),
                tenant=owner.tenant,
                instance=owner.id,
                host=host.id,
                suspended=consequence(host.standing).suspended,
                withdrawn=False,
                heard_at=now,
                version=1,
                created_at=now,
            )
            _describe(row, wish, wish.state)
            session.add(row)
            await self._record(session, actor, "service.register", row, now)
            return row

        return await self._ledger.write(work)

    async def replace(
        self, actor: str, instance: str, service: str, wish: ServiceInput, expected: str | None
    ) -> ServiceRow:
        """Describe a service anew; raises as `register`, `NoService` or `EtagDiffers`.

        An application that sends back SUSPENDED, as it read it, keeps the state that it declared before.
        """
        now = self._ledger.clock()
        if wish.ser_instance_id not in {None, service}:
            raise ServiceInvalid("serInstanceId names another service")
        _check_transport(wish)

        async def work(session: AsyncSession) -> ServiceRow:
            await _check_declared(session, await _running(session, instance), wish)
            row = await _own(session, instance, service, expected)
            declared = ServiceState(row.document["state"])
            _describe(row, wish, declared if wish.state is ServiceState.SUSPENDED else wish.state)
            row.heard_at = now
            row.version += 1
            await self._record(session, actor, "service.replace", row, now)
            return row

        return await self._ledger.write(work)

    async def remove(self, actor: str, instance: str, service: str, expected: str | None) -> None:
        """Remove a service; raises `NoService` or `EtagDiffers`."""
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> None:
            row = await _own(session, instance, service, expected)
            await self._record(session, actor, "service.remove", row, now)
            await session.delete(row)

        await self._ledger.write(work)

    async def heartbeat(self, instance: str, service: str) -> ServiceRow:
        """Note that a service is alive; raises `NoService`, and `InstanceState` if no heartbeats were asked for."""
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> ServiceRow:
            row = await _own(session, instance, service, None)
            if row.interval is None:
                raise InstanceState("the platform asked for no heartbeats of this service")
            row.heard_at = now
            return row

        return await self._ledger.write(work)

    async def get(self, service: str, tenant: str | None) -> ServiceRow:
        """Return a service of a tenant (None: of any); raises `NoService`."""
        async with self._ledger.store.read() as session:
            row = await session.get(ServiceRow, service)
            if row is None or tenant not in {None, row.tenant}:
                raise NoService("there is no such service")
            return row

    async def get_own(self, instance: str, service: str) -> ServiceRow:
        """Return a service of an instance; raises `NoService`."""
        async with self._ledger.store.read() as session:
            return await _own(session, instance, service, None)

    async def list(self, *, tenant: str | None = None, instance: str | None = None) -> Sequence[ServiceRow]:
        """Return the services of a tenant or of an instance, oldest first."""
        async with self._ledger.store.read() as session:
            return list(await session.scalars(_of(select(ServiceRow), tenant, instance)))

    def version(self) -> int | None:
        """Return `Store.version`: while it is the same, so is everything that this registry reads."""
        return self._ledger.store.version()

    async def marked(self, *, tenant: str | None = None, instance: str | None = None) -> Sequence[Row[Any]]:
        """Return the columns `MARKED` of what `list` returns: a small part of the work."""
        async with self._ledger.store.read() as session:
            return list(await session.execute(_of(select(*MARKED), tenant, instance)))

    async def host_of(self, instance: str | None) -> str | None:
        """Return where an instance runs, or None."""
        if instance is None:
            return None
        async with self._ledger.store.read() as session:
            return await session.scalar(select(InstanceRow.host).where(InstanceRow.id == instance))

    async def _record(self, session: AsyncSession, actor: str, action: str, row: ServiceRow, now: datetime) -> None:
        facts = {"instance": row.instance, "tenant": row.tenant, "serName": row.name}
        await self._ledger.record(session, actor=actor, action=action, subject=row.id, facts=facts, now=now)


class Subscriptions:
    """Shows and removes subscriptions. New ones are not taken: nothing is delivered. Kind "service" or "support"."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @staticmethod
    def refuse() -> NoReturn:
        """Take no subscription: nothing would be delivered for it. Raises `SubscriptionUnsupported`."""
        raise SubscriptionUnsupported(
            "this platform delivers no notifications",
            advice="Ask again from time to time: GET on services is cheap, and entity tags tell what has changed.",
        )

    async def list(self, instance: str, kind: str) -> Sequence[SubscriptionRow]:
        """Return the subscriptions of an instance, oldest first."""
        query = select(SubscriptionRow).where(SubscriptionRow.instance == instance, SubscriptionRow.kind == kind)
        async with self._ledger.store.read() as session:
            return list(await session.scalars(query.order_by(SubscriptionRow.created_at, SubscriptionRow.id)))

    async def get(self, instance: str, kind: str, subscription: str) -> SubscriptionRow:
        """Return a subscription; raises `NoSubscription`."""
        async with self._ledger.store.read() as session:
            return await _subscription(session, instance, kind, subscription)

    async def remove(self, actor: str, instance: str, kind: str, subscription: str) -> None:
        """Remove a subscription; raises `NoSubscription`."""
        now = self._ledger.clock()

        async def work(session: AsyncSession) -> None:
            row = await _subscription(session, instance, kind, subscription)
            await session.delete(row)
            await self._ledger.record(session, actor=actor, action="subscription.remove", subject=row.id, now=now)

        await self._ledger.write(work)


def _of(query: Q, tenant: str | None, instance: str | None) -> Q:
    """Return a query of the services of a tenant or of an instance, oldest first."""
    if tenant is not None:
        query = query.where(ServiceRow.tenant == tenant)
    if instance is not None:
        query = query.where(ServiceRow.instance == instance)
    return query.order_by(ServiceRow.created_at, ServiceRow.id)


async def _subscription(session: AsyncSession, instance: str, kind: str, subscription: str) -> SubscriptionRow:
    row = await session.get(SubscriptionRow, subscription)
    if row is None or (row.instance, row.kind) != (instance, kind):
        raise NoSubscription("the instance has no such subscription")
    return row


async def _running(session: AsyncSession, instance: str) -> InstanceRow:
    row = await session.get(InstanceRow, instance)
    if row is None:
        raise NoInstance("there is no such application instance")
    if row.state != INSTANTIATED:
        raise InstanceState("the instance is not instantiated")
    return row


async def _own(session: AsyncSession, instance: str, service: str, expected: str | None) -> ServiceRow:
    row = await session.get(ServiceRow, service)
    if row is None or row.instance != instance:
        raise NoService("the instance has no such service")
    if expected is not None and expected not in {"*", f'"{row.version}"'}:
        raise EtagDiffers("the service has changed since it was read", advice="Read it again.")
    return row


def _describe(row: ServiceRow, wish: ServiceInput, state: ServiceState) -> None:
    row.document = {**wish.wire(), "state": state.value}
    row.name = wish.ser_name
    row.category = None if wish.ser_category is None else wish.ser_category.id
    row.interval = None
    if wish.liveness_interval is not None:
        row.interval = min(max(wish.liveness_interval or DEFAULT_INTERVAL, SHORTEST_INTERVAL), LONGEST_INTERVAL)


async def _check_declared(session: AsyncSession, owner: InstanceRow, wish: ServiceInput) -> None:
    """Raise `ServiceUndeclared` unless the descriptor names the service, or names none that are produced."""
    package = await session.get_one(PackageRow, owner.package)
    declared = {service.ser_name for service in AppD.model_validate(package.appd).app_service_produced}
    if declared and wish.ser_name not in declared:
        raise ServiceUndeclared(
            "the descriptor does not name this service", advice="Add it to appServiceProduced of the AppD."
        )


def _check_transport(wish: ServiceInput) -> None:
    if wish.transport_info is None:
        raise NoTransport("this platform offers no transports of its own", advice="Describe it in transportInfo.")


def _count(kind: type[ServiceRow] | type[SubscriptionRow], instance: str) -> Any:  # noqa: ANN401 - a select of one number
    return select(func.count()).select_from(kind).where(kind.instance == instance)
