"""POST /attest/v1/challenges and /attest/v1/evidence: a node proves itself by its TPM, not by a token."""

from typing import Any

from fastapi import APIRouter, Request

from umec_attest.service.callers import address_of
from umec_attest.service.evidence.schemas import ChallengeRequest, EvidenceRequest
from umec_attest.service.evidence.service import RoundService

__all__ = ["rounds_router"]


def rounds_router(service: RoundService) -> APIRouter:
    """Return the routes of rounds."""
    router = APIRouter(prefix="/attest/v1")

    @router.post("/challenges")
    async def challenge(request: ChallengeRequest) -> dict[str, Any]:
        return await service.challenge(request.node)

    @router.post("/evidence")
    async def submit(request: EvidenceRequest, http: Request) -> dict[str, Any]:
        return await service.submit(request, address=address_of(http))

    return router
