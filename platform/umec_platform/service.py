"""The MEC host as one object: everything that its two listeners serve and that runs beside them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from fastapi import APIRouter
from sqlalchemy import text

from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.outbox import Dispatcher
from umec_core.standing import StandingEntry, StandingView
from umec_core.store import Store
from umec_core.tokens import TokenVerifier
from umec_platform.applications.endpoints import support_router
from umec_platform.applications.service import Applications
from umec_platform.effects import HOST, OPERATION, AuditRow, Ledger
from umec_platform.hosts.endpoints import relay_router
from umec_platform.hosts.fleet import Fleet
from umec_platform.hosts.ports import Connect, StandingSource
from umec_platform.hosts.relays import Relays
from umec_platform.hosts.service import Hosts
from umec_platform.instances.endpoints import instance_router, log_router
from umec_platform.instances.lifecycle import LifeCycle
from umec_platform.instances.ports import Admitter, ClientRegistrar, Puller
from umec_platform.instances.recovery import Recovery
from umec_platform.instances.service import Instances
from umec_platform.instances.starting import Site
from umec_platform.nodeimages.endpoints import node_image_router
from umec_platform.nodeimages.ports import ImageReader
from umec_platform.nodeimages.service import NodeImages
from umec_platform.overview import platform_router
from umec_platform.packages.endpoints import package_router
from umec_platform.packages.service import Packages
from umec_platform.rules.service import Rules
from umec_platform.services.endpoints import ServiceEndpoints, service_router
from umec_platform.services.service import Services, Subscriptions
from umec_platform.services.view import Showcase
from umec_platform.store import MIGRATIONS
from umec_platform.tenants.service import Tenants

__all__ = ["PlatformService", "PlatformSettings"]

VERSIONS: Final = ("v1", "v2")
"""Paths of the MEC 011 APIs: the standard's own, and the alias that some clients of newer editions use."""


@dataclass(frozen=True, slots=True)
class PlatformSettings:
    """What the platform has to know of its site. URLs have no final slash; `ca` is the PEM of the server CA."""

    database: str
    management: str
    mp1: str
    registry: str
    ca: str


class PlatformService:
    """One MEC platform. `open` makes it; `run` works until cancelled; `close` after that."""

    def __init__(
        self,
        *,
        store: Store,
        dispatcher: Dispatcher,
        fleet: Fleet,
        relays: Relays,
        lifecycle: LifeCycle,
        hosts: Hosts,
        management_routers: Sequence[APIRouter],
        mp1_routers: Sequence[APIRouter],
    ) -> None:
        self.management_routers: Final = management_routers
        self.mp1_routers: Final = mp1_routers
        self._store = store
        self._dispatcher = dispatcher
        self._fleet = fleet
        self._relays = relays
        self._lifecycle = lifecycle
        self._hosts = hosts

    @classmethod
    async def open(
        cls,
        settings: PlatformSettings,
        *,
        management_verifier: TokenVerifier,
        mp1_verifier: TokenVerifier,
        view: StandingView,
        source: StandingSource | None,
        admitter: Admitter,
        puller: Puller,
        registrar: ClientRegistrar,
        connect: Connect,
        decision_key: EllipticCurvePrivateKey,
        audit_key: EllipticCurvePrivateKey,
        clock: Clock,
        reader: ImageReader,
    ) -> "PlatformService":
        """Open the store and put the platform together.

        `management_verifier` takes tokens for `MANAGEMENT/platform/v1`, `mp1_verifier` those for `MP1/`; `view` is the
        one that the site's standing follower fills, whose news also go to `on_standing`; `source` gives statements
        that are relayed to hosts; `connect` makes a driver from the socket of a netd (one that is reached by the relay
        of its node needs none).
        """
        store = await Store.open(settings.database, migrations=MIGRATIONS)
        origin = f"{settings.management}/platform/v1"
        ledger = Ledger(store, AuditLog(AuditRow, audit_key, origin), clock)
        relays = Relays(view, clock)
        fleet = Fleet(ledger, relays.connecting(connect), source, Recovery(ledger))
        site = Site(
            issuer=settings.management,
            mp1=settings.mp1,
            ca=settings.ca,
            decision_issuer=origin,
            decision_key=decision_key,
        )
        lifecycle = LifeCycle(
            ledger, fleet, site=site, view=view, admitter=admitter, puller=puller, registrar=registrar
        )
        hosts, services, rules = Hosts(ledger, view), Services(ledger), Rules(ledger, fleet)
        subscriptions = Subscriptions(ledger)
        management = [
            platform_router(
                management_verifier,
                tenants=Tenants(ledger),
                hosts=hosts,
                services=services,
                rules=rules,
                ledger=ledger,
                showcase=Showcase(
                    base=f"{settings.mp1}/mec_service_mgmt/v1",
                    token_endpoint=site.token_endpoint,
                    host=None,
                    owner=None,
                ),
                base=settings.management,
                clock=clock,
            ),
            package_router(management_verifier, Packages(ledger), base=settings.management),
            instance_router(management_verifier, Instances(ledger, view), ledger, base=settings.management),
            log_router(management_verifier, Instances(ledger, view), fleet),
            relay_router(management_verifier, hosts, relays, registry=settings.registry),
            node_image_router(
                management_verifier, NodeImages(ledger, view, admitter, reader), registry=settings.registry
            ),
        ]
        mp1: list[APIRouter] = []
        for version in VERSIONS:
            prefix = f"/mec_service_mgmt/{version}"
            endpoints = ServiceEndpoints(
                services,
                subscriptions,
                base=f"{settings.mp1}{prefix}",
                token_endpoint=site.token_endpoint,
                clock=clock,
            )
            mp1.append(service_router(mp1_verifier, endpoints, prefix))
            prefix = f"/mec_app_support/{version}"
            mp1.append(
                support_router(
                    mp1_verifier,
                    applications=Applications(ledger),
                    rules=rules,
                    subscriptions=subscriptions,
                    base=f"{settings.mp1}{prefix}",
                    prefix=prefix,
                    clock=clock,
                )
            )
        return cls(
            store=store,
            dispatcher=ledger.dispatcher({HOST: fleet.handle, OPERATION: lifecycle.handle}),
            fleet=fleet,
            relays=relays,
            lifecycle=lifecycle,
            hosts=hosts,
            management_routers=management,
            mp1_routers=mp1,
        )

    async def on_standing(self, entries: Sequence[StandingEntry]) -> None:
        """Take news of the standing feed: services, rules and hosts follow. Give this to the site's follower."""
        await self._hosts.on_standing(entries)

    async def run(self) -> None:
        """Work until cancelled: hosts, operations, outbox. What a crash left undone is done first."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._fleet.run(), name="fleet")
                group.create_task(self._lifecycle.run(), name="lifecycle")
                await asyncio.sleep(0)
                group.create_task(self._dispatcher.run(), name="platform-outbox")
        finally:
            self._relays.rest()

    async def ready(self) -> None:
        """Return if the database answers; for /readyz."""
        async with self._store.read() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close the store; after `run` was cancelled."""
        await self._store.close()
