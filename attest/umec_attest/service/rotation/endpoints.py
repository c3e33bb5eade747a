"""POST /attest/v1/rotations and …/proof: a node proves itself by its TPM and its present AK, not by a token."""

from typing import Any

from fastapi import APIRouter, Request

from umec_attest.service.callers import address_of
from umec_attest.service.rotation.schemas import RotationProof, RotationRequest
from umec_attest.service.rotation.service import RotationService

__all__ = ["rotation_router"]


def rotation_router(service: RotationService) -> APIRouter:
    """Return the routes of rotation."""
    router = APIRouter(prefix="/attest/v1/rotations")

    @router.post("", status_code=201)
    async def begin(request: RotationRequest, http: Request) -> dict[str, Any]:
        return await service.begin(request, address=address_of(http))

    @router.post("/proof")
    async def prove(request: RotationProof, http: Request) -> dict[str, Any]:
        return await service.prove(request, address=address_of(http))

    return router
