"""`/platform/v1/node-images` for operators; `/platform/v1/node-image` for a node, about itself alone."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Response

from umec_core.http import require
from umec_core.principal import Principal
from umec_core.tokens import TokenVerifier
from umec_platform.api import ADMIN, acting_tenant, entity, own_node, rfc3339
from umec_platform.nodeimages.schemas import ImageOrder, ImageReport
from umec_platform.nodeimages.service import NodeImages
from umec_platform.tables.nodeimages import NodeImageOrderRow, NodeImageReportRow
from umec_platform.tenants.schemas import Id

__all__ = ["node_image_router"]

HOST: Final = "node:host"
Target = Annotated[str, Query(pattern=r"^(node/[a-z0-9-]{1,63}|image/[a-z0-9-]{1,63}/[a-z0-9-]{1,63})$")]


def node_image_router(verifier: TokenVerifier, images: NodeImages, *, registry: str) -> APIRouter:
    """Return the endpoints; `registry` is the URL of the registry listener."""
    router = APIRouter(prefix="/platform/v1")
    admin = Annotated[Principal, Depends(require(verifier, ADMIN))]
    node = Annotated[Principal, Depends(require(verifier, HOST))]

    @router.put("/node-images")
    async def order(wish: ImageOrder, who: admin, *, dry_run: bool = False) -> Response:
        acting_tenant(who, wish.repository.partition("/")[0])
        row = await images.order(who.subject, wish, dry=dry_run)
        return entity({**_order(row), "dry_run": dry_run})

    @router.get("/node-images")
    async def show(who: admin, node: Id | None = None) -> Response:
        orders, reports = await images.shown(node, who.tenant)
        return entity({"orders": [_order(row) for row in orders], "nodes": [_report(row) for row in reports]})

    @router.delete("/node-images", status_code=204)
    async def withdraw(who: admin, target: Target) -> None:
        await images.withdraw(who.subject, target, who.tenant)

    @router.get("/node-image")
    async def own(who: node, image: Annotated[Id | None, Query()] = None) -> Response:
        row = await images.own(own_node(who), who.tenant, image)
        told = None if row is None else {**_order(row), "registry": registry}
        return entity({"order": told})

    @router.post("/node-image", status_code=204)
    async def report(said: ImageReport, who: node) -> None:
        await images.report(own_node(who), who.tenant, said)

    return router


def _order(row: NodeImageOrderRow) -> dict[str, Any]:
    return {
        "target": row.target,
        "image": row.image,
        "repository": row.repository,
        "digest": row.digest,
        "version": row.version,
        "manifest": row.manifest,
        "kernel": row.kernel,
        "attempt": row.attempt,
        "ordered_by": row.ordered_by,
        "ordered_at": rfc3339(row.ordered_at),
    }


def _report(row: NodeImageReportRow) -> dict[str, Any]:
    return {
        "node": row.node,
        "tenant": row.tenant,
        "image": row.image,
        "running": row.running,
        "confirmed": row.confirmed,
        "phase": row.phase,
        "version": row.version,
        "manifest": row.manifest,
        "digest": row.digest,
        "code": row.code,
        "detail": row.detail,
        "reported_at": rfc3339(row.reported_at),
    }
