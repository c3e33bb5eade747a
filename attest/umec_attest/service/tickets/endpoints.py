"""POST /attest/v1/tickets, and PUT and DELETE /attest/v1/allowed-tpms/{ek_sha256}."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from umec_attest.service.access import Access
from umec_attest.service.tickets.schemas import AllowRequest, TicketRequest
from umec_attest.service.tickets.service import TicketService
from umec_core.principal import Principal

__all__ = ["tickets_router"]

EkSha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


def tickets_router(service: TicketService, access: Access) -> APIRouter:
    """Return the routes of tickets."""
    router = APIRouter(prefix="/attest/v1")

    @router.post("/tickets", status_code=201)
    async def create(
        request: TicketRequest, principal: Annotated[Principal, Depends(access.require("attest:admin"))]
    ) -> dict[str, Any]:
        return await service.create(request, actor=principal.subject)

    @router.put("/allowed-tpms/{ek_sha256}")
    async def allow(
        ek_sha256: EkSha256,
        request: AllowRequest,
        principal: Annotated[Principal, Depends(access.require("attest:admin"))],
    ) -> dict[str, Any]:
        return await service.allow(ek_sha256, request, actor=principal.subject)

    @router.delete("/allowed-tpms/{ek_sha256}")
    async def disallow(
        ek_sha256: EkSha256, principal: Annotated[Principal, Depends(access.require("attest:admin"))]
    ) -> dict[str, Any]:
        return await service.disallow(ek_sha256, actor=principal.subject)

    return router
