"""`/platform/v1` on the management listener: tenants, hosts, and what there is of services, rules and decisions."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from umec_core.clock import Clock
from umec_core.http import require
from umec_core.principal import Principal
from umec_core.tokens import TokenVerifier
from umec_platform.api import ADMIN, acting_tenant, entity, rfc3339
from umec_platform.effects import Ledger
from umec_platform.hosts.schemas import NewHost
from umec_platform.hosts.service import Hosts
from umec_platform.rules.service import Rules
from umec_platform.services.service import Services
from umec_platform.services.view import Showcase
from umec_platform.tables.hosts import HostRow
from umec_platform.tables.tenants import TenantRow
from umec_platform.tenants.schemas import NewTenant
from umec_platform.tenants.service import Tenants

__all__ = ["platform_router"]


def platform_router(
    verifier: TokenVerifier,
    *,
    tenants: Tenants,
    hosts: Hosts,
    services: Services,
    rules: Rules,
    ledger: Ledger,
    showcase: Showcase,
    base: str,
    clock: Clock,
) -> APIRouter:
    """Return the endpoints; `base` is the URL of the management listener."""
    router = APIRouter(prefix="/platform/v1")
    admin = Annotated[Principal, Depends(require(verifier, ADMIN))]
    caller = Annotated[Principal, Depends(require(verifier))]

    @router.post("/tenants")
    async def add_tenant(wish: NewTenant, who: admin) -> Response:
        row = await tenants.create(who.subject, wish)
        return entity(_tenant(row), status=201, location=f"{base}/platform/v1/tenants/{row.id}")

    @router.get("/tenants")
    async def list_tenants(_: admin) -> Response:
        return entity([_tenant(row) for row in await tenants.list()])

    @router.post("/hosts")
    async def add_host(wish: NewHost, who: admin) -> Response:
        row = await hosts.create(who.subject, wish)
        return entity(_host(row), status=201, location=f"{base}/platform/v1/hosts/{row.id}")

    @router.get("/hosts")
    async def list_hosts(_: admin) -> Response:
        return entity([_host(row) for row in await hosts.list()])

    @router.get("/services")
    async def list_services(who: caller, tenant: str | None = None) -> Response:
        now = clock()
        rows = await services.list(tenant=acting_tenant(who, tenant))
        shown = [{**showcase.show(row, now).wire(), "tenant": row.tenant, "host": row.host} for row in rows]
        return entity(shown)

    @router.get("/rules")
    async def list_rules(who: caller, tenant: str | None = None) -> Response:
        rows = await rules.all(acting_tenant(who, tenant))
        return entity(
            [
                {
                    "tenant": row.tenant,
                    "instance": row.instance,
                    "host": row.host,
                    "kind": row.kind,
                    "refusal": row.refusal,
                    "rule": row.document,
                }
                for row in rows
            ]
        )

    @router.get("/audit")
    async def audit(_: admin, after: Annotated[int, Query(ge=0, lt=2**53)] = 0) -> Response:
        async with ledger.store.read() as session:
            return entity(await ledger.audit.export(session, after=after))

    return router


def _tenant(row: TenantRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "addresses": row.addresses,
        "domains": row.domains,
        "created_at": rfc3339(row.created_at),
    }


def _host(row: HostRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "node": row.node,
        "netd": row.netd,
        "standing": row.standing,
        "generation": row.generation,
        "changed_at": None if row.changed_at is None else rfc3339(row.changed_at),
        "created_at": rfc3339(row.created_at),
    }
