"""POST and GET /attest/v1/reference-sets."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from umec_attest.service.references.service import ReferenceService
from umec_core.http import require
from umec_core.principal import Principal
from umec_core.tokens import TokenVerifier

__all__ = ["references_router"]


def references_router(service: ReferenceService, tokens: TokenVerifier) -> APIRouter:
    """Return the routes of reference sets; the body of a POST is the DSSE envelope as it was signed."""
    router = APIRouter(prefix="/attest/v1/reference-sets")

    @router.post("", status_code=201)
    async def install(
        request: Request, principal: Annotated[Principal, Depends(require(tokens, "attest:admin"))]
    ) -> dict[str, Any]:
        return await service.install(await request.body(), actor=principal.subject)

    @router.get("", dependencies=[Depends(require(tokens, "attest:read"))])
    async def show() -> dict[str, Any]:
        return {"reference_sets": await service.list()}

    return router
