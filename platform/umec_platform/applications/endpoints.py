"""`/mec_app_support/v1` on Mp1 (MEC 011 clause 7): rules, readiness, termination, time, subscriptions, registration."""

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response

from umec_core.clock import Clock
from umec_core.http import problem_response, require
from umec_core.principal import Principal
from umec_core.tokens import TokenVerifier
from umec_platform.api import entity, if_match, own_instance, seconds
from umec_platform.applications.schemas import (
    AppReadyConfirmation,
    AppTerminationConfirmation,
    AppTerminationNotificationSubscription,
)
from umec_platform.applications.service import Applications
from umec_platform.effects import RuleKey
from umec_platform.errors import HostSilent, InstanceForeign
from umec_platform.rules.schemas import DnsRule, TrafficRule
from umec_platform.rules.service import DNS, TRAFFIC, Rules
from umec_platform.services.service import Subscriptions
from umec_platform.tables.services import SubscriptionRow

__all__ = ["support_router"]

RETRY_AFTER: Final = "5"
"""Seconds until a silent host has surely been asked again: `LONGEST_PAUSE` of its worker."""


def support_router(
    verifier: TokenVerifier,
    *,
    applications: Applications,
    rules: Rules,
    subscriptions: Subscriptions,
    base: str,
    prefix: str,
    clock: Clock,
) -> APIRouter:
    """Return the endpoints under one path; `base` is its URL."""
    router = APIRouter(prefix=prefix)
    router.include_router(_lifecycle(verifier, applications))
    router.include_router(_rules(verifier, rules, "mec:traffic", TRAFFIC, "traffic_rules"))
    router.include_router(_rules(verifier, rules, "mec:dns", DNS, "dns_rules"))
    router.include_router(_timing(verifier, clock))
    router.include_router(_subscriptions(verifier, subscriptions, base))
    return router


def _lifecycle(verifier: TokenVerifier, applications: Applications) -> APIRouter:
    router = APIRouter()
    caller = Annotated[Principal, Depends(require(verifier, "mec:app"))]

    @router.post("/applications/{instance}/confirm_ready")
    async def ready(instance: str, _: AppReadyConfirmation, who: caller) -> Response:
        own_instance(who, instance)
        await applications.confirm_ready(who.subject, instance)
        return Response(status_code=204)

    @router.post("/applications/{instance}/confirm_termination")
    async def ended(instance: str, _: AppTerminationConfirmation, who: caller) -> Response:
        own_instance(who, instance)
        await applications.confirm_termination(who.subject, instance)
        return Response(status_code=204)

    @router.get("/registrations/{instance}")
    async def registration(instance: str, who: caller) -> Response:
        own_instance(who, instance)
        row, package = await applications.get(instance)
        appd: dict[str, Any] = package.appd or {}
        document = {
            "appName": appd["appName"],
            "appProvider": appd["appProvider"],
            "appDId": package.app_d_id,
            "appInstanceId": row.id,
            "isInsByMec": True,
        }
        return entity(document, version=row.version)

    return router


def _rules(verifier: TokenVerifier, rules: Rules, scope: str, kind: str, path: str) -> APIRouter:
    router = APIRouter(prefix=f"/applications/{{instance}}/{path}")
    caller = Annotated[Principal, Depends(require(verifier, scope))]

    @router.get("")
    async def all_rules(instance: str, who: caller) -> Response:
        own_instance(who, instance)
        return entity([row.document for row in await rules.list(instance, kind)])

    @router.get("/{rule}")
    async def read(instance: str, rule: str, who: caller) -> Response:
        own_instance(who, instance)
        row = await rules.get(RuleKey(instance, kind, rule))
        return entity(row.document, version=row.version)

    async def put(request: Request, who: Principal, key: RuleKey, wish: TrafficRule | DnsRule) -> Response:
        own_instance(who, key.instance)
        try:
            row = await rules.put(who.subject, key, wish, expected=if_match(request))
        except HostSilent as error:
            return problem_response(error, {"Retry-After": RETRY_AFTER})
        return entity(row.document, version=row.version)

    if kind == TRAFFIC:

        @router.put("/{rule}")
        async def put_traffic(request: Request, instance: str, rule: str, wish: TrafficRule, who: caller) -> Response:
            return await put(request, who, RuleKey(instance, kind, rule), wish)
    else:

        @router.put("/{rule}")
        async def put_dns(request: Request, instance: str, rule: str, wish: DnsRule, who: caller) -> Response:
            return await put(request, who, RuleKey(instance, kind, rule), wish)

    return router


def _timing(verifier: TokenVerifier, clock: Callable[[], Any]) -> APIRouter:
    router = APIRouter(prefix="/timing")
    caller = Annotated[Principal, Depends(require(verifier, "mec:app"))]

    @router.get("/timing_caps")
    async def capabilities(_: caller) -> Response:
        return entity({"timeStamp": seconds(clock()), "ntpServers": [], "ptpMasters": []})

    @router.get("/current_time")
    async def current_time(_: caller) -> Response:
        return entity({**seconds(clock()), "timeSourceStatus": "NONTRACEABLE"})

    return router


def _subscriptions(verifier: TokenVerifier, subscriptions: Subscriptions, base: str) -> APIRouter:
    router = APIRouter(prefix="/applications/{instance}/subscriptions")
    caller = Annotated[Principal, Depends(require(verifier, "mec:app"))]

    def url(row: SubscriptionRow) -> str:
        return f"{base}/applications/{row.instance}/subscriptions/{row.id}"

    def shown(row: SubscriptionRow) -> dict[str, Any]:
        return {**row.document, "_links": {"self": {"href": url(row)}}}

    @router.get("")
    async def links(instance: str, who: caller) -> Response:
        own_instance(who, instance)
        found = [
            {"href": url(row), "subscriptionType": row.document["subscriptionType"]}
            for row in await subscriptions.list(instance, "support")
        ]
        here = f"{base}/applications/{instance}/subscriptions"
        return entity({"_links": {"self": {"href": here}, "subscriptions": found}})

    @router.post("")
    async def subscribe(instance: str, wish: AppTerminationNotificationSubscription, who: caller) -> Response:
        own_instance(who, instance)
        if wish.app_instance_id != instance:
            raise InstanceForeign("appInstanceId names another application instance")
        subscriptions.refuse()

    @router.get("/{subscription}")
    async def read(instance: str, subscription: str, who: caller) -> Response:
        own_instance(who, instance)
        return entity(shown(await subscriptions.get(instance, "support", subscription)), version=1)

    @router.delete("/{subscription}")
    async def remove(instance: str, subscription: str, who: caller) -> Response:
        own_instance(who, instance)
        await subscriptions.remove(who.subject, instance, "support", subscription)
        return Response(status_code=204)

    return router
