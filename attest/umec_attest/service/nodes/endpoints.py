"""/attest/v1/nodes: reading needs attest:read and shows a tenant its own nodes; deciding needs attest:admin.

A node announces its own reboots at /attest/v1/reboots, with its certificate-bound token and for no other node.
"""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query

from umec_attest.service.access import Access
from umec_attest.service.nodes.floors import FloorService
from umec_attest.service.nodes.reboots import RebootService
from umec_attest.service.nodes.schemas import AllowedVersion, Announcement, Approval, Decision, NodeClass
from umec_attest.service.nodes.service import NodeService
from umec_attest.service.standings.endpoints import NotANode
from umec_attest.service.wire import Id
from umec_core.principal import Principal
from umec_core.standing import Standing

__all__ = ["nodes_router", "reboots_router"]

MOST: Final = 1000
"""Nodes on a page: some 500 KB."""

DryRun = Annotated[bool, Query(description="Tell what the decision would make of the node, and change nothing.")]


def nodes_router(service: NodeService, reboots: RebootService, floors: FloorService, access: Access) -> APIRouter:
    """Return the routes of nodes."""
    router = APIRouter(prefix="/attest/v1/nodes")
    reader = Annotated[Principal, Depends(access.require("attest:read"))]
    admin = Annotated[Principal, Depends(access.require("attest:admin"))]

    @router.get("")
    async def show_all(
        principal: reader,
        tenant: Id | None = None,
        standing: Standing | None = None,
        node_class: Annotated[NodeClass | None, Query(alias="class")] = None,
        after: Annotated[str, Query(max_length=63)] = "",
        limit: Annotated[int, Query(ge=1, le=MOST)] = MOST,
    ) -> dict[str, Any]:
        return await service.list(
            principal.tenant, of=tenant, standing=standing, node_class=node_class, after=after, limit=limit
        )

    @router.get("/{node}")
    async def show(node: Id, principal: reader) -> dict[str, Any]:
        return await service.read(node, principal.tenant)

    @router.get("/{node}/explain")
    async def explain(node: Id, principal: reader) -> dict[str, Any]:
        return await service.explain(node, principal.tenant)

    @router.post("/{node}/approve")
    async def approve(node: Id, principal: admin, approval: Approval | None = None) -> dict[str, Any]:
        return await service.approve(node, approval or Approval(), actor=principal.subject)

    @router.post("/{node}/quarantine")
    async def quarantine(
        node: Id, principal: admin, decision: Decision | None = None, *, dry_run: DryRun = False
    ) -> dict[str, Any]:
        return await service.quarantine(node, decision or Decision(), actor=principal.subject, dry=dry_run)

    @router.post("/{node}/readmit")
    async def readmit(
        node: Id, principal: admin, decision: Decision | None = None, *, dry_run: DryRun = False
    ) -> dict[str, Any]:
        return await service.readmit(node, decision or Decision(), actor=principal.subject, dry=dry_run)

    @router.post("/{node}/revoke")
    async def revoke(
        node: Id, principal: admin, decision: Decision | None = None, *, dry_run: DryRun = False
    ) -> dict[str, Any]:
        return await service.revoke(node, decision or Decision(), actor=principal.subject, dry=dry_run)

    @router.post("/{node}/announce-reboot")
    async def announce(node: Id, principal: admin, announcement: Announcement | None = None) -> dict[str, Any]:
        return await reboots.announce(node, announcement or Announcement(), actor=principal.subject)

    @router.post("/{node}/clear-reset")
    async def clear(node: Id, principal: admin, decision: Decision | None = None) -> dict[str, Any]:
        return await reboots.clear(node, decision or Decision(), actor=principal.subject)

    @router.post("/{node}/allow-version")
    async def allow(node: Id, principal: admin, allowed: AllowedVersion) -> dict[str, Any]:
        return await floors.allow(node, allowed, actor=principal.subject)

    return router


def reboots_router(reboots: RebootService, access: Access) -> APIRouter:
    """Return the route by which a node announces its own reboot."""
    router = APIRouter(prefix="/attest/v1/reboots")

    @router.post("")
    async def announce(
        announcement: Announcement, principal: Annotated[Principal, Depends(access.require("node:host"))]
    ) -> dict[str, Any]:
        if principal.node is None:
            raise NotANode("only a node announces a reboot of its own")
        return await reboots.announce_own(principal.node, announcement)

    return router
