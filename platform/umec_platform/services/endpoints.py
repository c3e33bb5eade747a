"""`/mec_service_mgmt/v1` on Mp1 (MEC 011 clause 8): the registry of services."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import Row

from umec_core.clock import Clock
from umec_core.http import judges_query, plain_route, require
from umec_core.principal import Principal
from umec_core.tokens import TokenVerifier
from umec_platform.api import entity, if_match, own_instance, same_tenant, seconds
from umec_platform.services.queries import parse_service_query
from umec_platform.services.schemas import (
    AVAILABILITY_SUBSCRIPTION,
    SerAvailabilityNotificationSubscription,
    ServiceInput,
    ServiceLivenessUpdate,
)
from umec_platform.services.service import Services, Subscriptions
from umec_platform.services.view import KeptList, Lists, Showcase, mark, next_silence, shown_state
from umec_platform.tables.services import ServiceRow, SubscriptionRow

__all__ = ["ServiceEndpoints", "service_router"]


class ServiceEndpoints:
    """The collaborators of the endpoints, for one version of the path."""

    def __init__(
        self, services: Services, subscriptions: Subscriptions, *, base: str, token_endpoint: str, clock: Clock
    ) -> None:
        self.services = services
        self.subscriptions = subscriptions
        self.base = base
        self._token_endpoint = token_endpoint
        self._clock = clock
        self._lists = Lists()

    async def found(self, request: Request, principal: Principal, *, instance: str | None = None) -> Response:
        """Return what the query of a request finds for a caller, of one instance or of its whole tenant."""
        query = parse_service_query(request.query_params.multi_items())
        tenant, now = same_tenant(principal), self._clock()
        key = (tenant, principal.instance, instance, query)
        version = self.services.version()
        known = self._lists.unchanged(key, version, now)
        if known is not None:
            return Response(known, media_type="application/json")
        showcase = await self._showcase(principal)
        marked: Sequence[ServiceRow | Row[Any]] = await self.services.marked(tenant=tenant, instance=instance)
        body = self._lists.find(key, showcase.host, tuple(mark(row, now) for row in marked))
        if body is None:
            marked = rows = await self.services.list(tenant=tenant, instance=instance)
            shown = [showcase.show(row, now).wire() for row in rows if showcase.offers(row, query)]
            body = bytes(entity(shown).body)
        marks, until = tuple(mark(row, now) for row in marked), next_silence(marked, now)
        self._lists.keep(key, KeptList(showcase.host, marks, body, version, until))
        return Response(body, media_type="application/json")

    async def shown(self, row: ServiceRow, principal: Principal) -> dict[str, Any]:
        """Return one service for a caller."""
        return (await self._showcase(principal)).show(row, self._clock()).wire()

    def liveness(self, row: ServiceRow) -> dict[str, Any]:
        """Return what was last heard of a service."""
        state = shown_state(row, self._clock())
        return {"state": state.value, "timeStamp": seconds(row.heard_at), "interval": row.interval}

    def subscription(self, row: SubscriptionRow) -> dict[str, Any]:
        """Return a subscription with its link."""
        return {**row.document, "_links": {"self": {"href": self.subscription_url(row)}}}

    def subscription_url(self, row: SubscriptionRow) -> str:
        """Return where a subscription is found."""
        return f"{self.base}/applications/{row.instance}/subscriptions/{row.id}"

    async def _showcase(self, principal: Principal) -> Showcase:
        host = await self.services.host_of(principal.instance)
        return Showcase(base=self.base, token_endpoint=self._token_endpoint, host=host, owner=principal.instance)


def service_router(verifier: TokenVerifier, endpoints: ServiceEndpoints, prefix: str) -> APIRouter:
    """Return the endpoints under one path."""
    router = APIRouter(prefix=prefix)
    reader = Annotated[Principal, Depends(require(verifier, "mec:services.read"))]
    writer = Annotated[Principal, Depends(require(verifier, "mec:services.write"))]
    services = endpoints.services

    may_read = require(verifier, "mec:services.read")

    async def find(request: Request) -> Response:
        return await endpoints.found(request, await may_read(request))

    router.routes.append(plain_route("GET", f"{prefix}/services", find))

    @router.get("/services/{service}")
    async def read(service: str, who: reader) -> Response:
        row = await services.get(service, same_tenant(who))
        return entity(await endpoints.shown(row, who), version=row.version)

    @router.get("/services/{service}/liveness")
    async def liveness(service: str, who: reader) -> Response:
        row = await services.get(service, same_tenant(who))
        own_instance(who, row.instance)
        return entity(endpoints.liveness(row))

    @router.patch("/services/{service}/liveness")
    async def heartbeat(service: str, _: ServiceLivenessUpdate, who: writer) -> Response:
        row = await services.get(service, same_tenant(who))
        own_instance(who, row.instance)
        await services.heartbeat(row.instance, service)
        return Response(status_code=204)

    @router.get("/transports")
    async def transports(_: reader) -> Response:
        return entity([])

    @router.get("/applications/{instance}/services", dependencies=[Depends(judges_query)])
    async def own(request: Request, instance: str, who: reader) -> Response:
        own_instance(who, instance)
        return await endpoints.found(request, who, instance=instance)

    @router.post("/applications/{instance}/services")
    async def register(instance: str, wish: ServiceInput, who: writer) -> Response:
        own_instance(who, instance)
        row = await services.register(who.subject, instance, wish)
        shown = await endpoints.shown(row, who)
        return entity(shown, version=row.version, status=201, location=shown["_links"]["self"]["href"])

    @router.get("/applications/{instance}/services/{service}")
    async def read_own(instance: str, service: str, who: reader) -> Response:
        own_instance(who, instance)
        row = await services.get_own(instance, service)
        return entity(await endpoints.shown(row, who), version=row.version)

    @router.put("/applications/{instance}/services/{service}")
    async def replace(request: Request, instance: str, service: str, wish: ServiceInput, who: writer) -> Response:
        own_instance(who, instance)
        row = await services.replace(who.subject, instance, service, wish, if_match(request))
        return entity(await endpoints.shown(row, who), version=row.version)

    @router.delete("/applications/{instance}/services/{service}")
    async def remove(request: Request, instance: str, service: str, who: writer) -> Response:
        own_instance(who, instance)
        await services.remove(who.subject, instance, service, if_match(request))
        return Response(status_code=204)

    router.include_router(_subscriptions(verifier, endpoints))
    return router


def _subscriptions(verifier: TokenVerifier, endpoints: ServiceEndpoints) -> APIRouter:
    router = APIRouter(prefix="/applications/{instance}/subscriptions")
    reader = Annotated[Principal, Depends(require(verifier, "mec:services.read"))]
    subscriptions = endpoints.subscriptions

    @router.get("")
    async def links(instance: str, who: reader) -> Response:
        own_instance(who, instance)
        found = [
            {"href": endpoints.subscription_url(row), "subscriptionType": AVAILABILITY_SUBSCRIPTION}
            for row in await subscriptions.list(instance, "service")
        ]
        here = f"{endpoints.base}/applications/{instance}/subscriptions"
        return entity({"_links": {"self": {"href": here}, "subscriptions": found}})

    @router.post("")
    async def subscribe(instance: str, _: SerAvailabilityNotificationSubscription, who: reader) -> Response:
        own_instance(who, instance)
        subscriptions.refuse()

    @router.get("/{subscription}")
    async def read(instance: str, subscription: str, who: reader) -> Response:
        own_instance(who, instance)
        return entity(endpoints.subscription(await subscriptions.get(instance, "service", subscription)), version=1)

    @router.delete("/{subscription}")
    async def remove(instance: str, subscription: str, who: reader) -> Response:
        own_instance(who, instance)
        await subscriptions.remove(who.subject, instance, "service", subscription)
        return Response(status_code=204)

    return router
