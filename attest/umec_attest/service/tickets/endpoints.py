"""POST /attest/v1/tickets."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from umec_attest.service.access import Access
from umec_attest.service.tickets.schemas import TicketRequest
from umec_attest.service.tickets.service import TicketService
from umec_core.principal import Principal

__all__ = ["tickets_router"]


def tickets_router(service: TicketService, access: Access) -> APIRouter:
    """Return the routes of tickets."""
    router = APIRouter(prefix="/attest/v1/tickets")

    @router.post("", status_code=201)
    async def create(
        request: TicketRequest, principal: Annotated[Principal, Depends(access.require("attest:admin"))]
    ) -> dict[str, Any]:
        return await service.create(request, actor=principal.subject)

    return router
