"""What all endpoints of the MEC host share: who may, which resource state, and the conventions of MEC 009."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import Request
from fastapi.responses import JSONResponse

from umec_core.principal import Principal
from umec_platform.errors import InstanceForeign, NotANode, QueryInvalid, ScopeMissing, TenantForeign

__all__ = [
    "ADMIN",
    "TENANT",
    "Who",
    "acting_tenant",
    "any_scope",
    "entity",
    "if_match",
    "own_instance",
    "own_node",
    "rfc3339",
    "same_tenant",
    "seconds",
]

ADMIN: Final = "platform:admin"
TENANT: Final = "platform:tenant"

Who = Callable[[Request], Awaitable[Principal]]
"""A dependency of FastAPI that returns the verified caller (`umec_core.http.require`)."""


def any_scope(principal: Principal, *scopes: str) -> None:
    """Raise `ScopeMissing` unless the caller holds at least one of the scopes."""
    if principal.scopes.isdisjoint(scopes):
        raise ScopeMissing(f"the token needs one of the scopes {', '.join(scopes)}")


def acting_tenant(principal: Principal, asked: str | None) -> str | None:
    """Return the tenant that the caller acts for; None is an operator that names none.

    1. A token of a tenant acts for that tenant only. 2. A token without a tenant needs the operator's scope.
    Raises `ScopeMissing` or `TenantForeign`.
    """
    any_scope(principal, ADMIN, TENANT)
    if principal.tenant is not None:  # 1
        if asked not in {None, principal.tenant}:
            raise TenantForeign("the token is of another tenant")
        return principal.tenant
    any_scope(principal, ADMIN)  # 2
    return asked


def same_tenant(principal: Principal) -> str:
    """Return the tenant of an application's token; raises `TenantForeign` if it has none."""
    if principal.tenant is None:
        raise TenantForeign("the token is of no tenant")
    return principal.tenant


def own_instance(principal: Principal, instance: str) -> None:
    """Raise `InstanceForeign` unless the caller is this application instance."""
    if principal.instance != instance:
        raise InstanceForeign("the token is of another application instance")


def own_node(principal: Principal) -> str:
    """Return the node that asks in its own name, over a connection with its certificate; raises `NotANode`.

    What runs on a node, or is registered for one, has tokens that name it, too: those are of other clients.
    """
    node = principal.node
    if node is None or principal.client_id != node or principal.instance is not None or principal.binding != "mtls":
        raise NotANode("only a node itself asks this, and shows the certificate to which its tokens are bound")
    return node


def if_match(request: Request) -> str | None:
    """Return the entity tag that a change is conditional on, or None; raises `QueryInvalid` for a list of them."""
    values = request.headers.getlist("if-match")
    if len(values) > 1 or (values and "," in values[0]):
        raise QueryInvalid("If-Match with one entity tag is understood here")
    return values[0].strip() if values else None


def entity(
    document: Any,  # noqa: ANN401 - any JSON
    *,
    version: int | None = None,
    status: int = 200,
    location: str | None = None,
) -> JSONResponse:
    """Return a resource with its entity tag and, where it was made or is found elsewhere, its location."""
    headers = {}
    if version is not None:
        headers["ETag"] = f'"{version}"'
    if location is not None:
        headers["Location"] = location
    return JSONResponse(document, status_code=status, headers=headers)


def rfc3339(moment: datetime) -> str:
    """Return a time as RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(moment: datetime) -> dict[str, int]:
    """Return a time as the TimeStamp of MEC standards."""
    return {"seconds": int(moment.timestamp()), "nanoSeconds": moment.microsecond * 1000}
