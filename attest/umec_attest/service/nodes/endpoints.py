"""/attest/v1/nodes: reading needs attest:read and shows a tenant its own nodes; deciding needs attest:admin."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from umec_attest.service.access import Access
from umec_attest.service.nodes.schemas import Approval, Decision
from umec_attest.service.nodes.service import NodeService
from umec_attest.service.wire import Id
from umec_core.principal import Principal

__all__ = ["nodes_router"]


def nodes_router(service: NodeService, access: Access) -> APIRouter:
    """Return the routes of nodes."""
    router = APIRouter(prefix="/attest/v1/nodes")
    reader = Annotated[Principal, Depends(access.require("attest:read"))]
    admin = Annotated[Principal, Depends(access.require("attest:admin"))]

    @router.get("")
    async def show_all(principal: reader) -> dict[str, Any]:
        return {"nodes": await service.list(principal.tenant)}

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
    async def quarantine(node: Id, principal: admin, decision: Decision | None = None) -> dict[str, Any]:
        return await service.quarantine(node, decision or Decision(), actor=principal.subject)

    @router.post("/{node}/readmit")
    async def readmit(node: Id, principal: admin, decision: Decision | None = None) -> dict[str, Any]:
        return await service.readmit(node, decision or Decision(), actor=principal.subject)

    @router.post("/{node}/revoke")
    async def revoke(node: Id, principal: admin, decision: Decision | None = None) -> dict[str, Any]:
        return await service.revoke(node, decision or Decision(), actor=principal.subject)

    return router
