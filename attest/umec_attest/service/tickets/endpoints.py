"""POST /attest/v1/tickets."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from umec_attest.service.tickets.schemas import TicketRequest
from umec_attest.service.tickets.service import TicketService
from umec_core.http import require
from umec_core.principal import Principal
from umec_core.tokens import TokenVerifier

__all__ = ["tickets_router"]


def tickets_router(service: TicketService, tokens: TokenVerifier) -> APIRouter:
    """Return the routes of tickets."""
    router = APIRouter(prefix="/attest/v1/tickets")

    @router.post("", status_code=201)
    async def create(
        request: TicketRequest, principal: Annotated[Principal, Depends(require(tokens, "attest:admin"))]
    ) -> dict[str, Any]:
        return await service.create(request, actor=principal.subject)

    return router
