"""POST /attest/v1/enrolments and …/{id}/activation: open to nodes, which have no credential yet."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from umec_attest.service.enrolments.schemas import ActivationRequest, EnrolmentRequest
from umec_attest.service.enrolments.service import EnrolmentService

__all__ = ["enrolments_router"]


def enrolments_router(service: EnrolmentService) -> APIRouter:
    """Return the routes of enrolments."""
    router = APIRouter(prefix="/attest/v1/enrolments")

    @router.post("", status_code=201)
    async def begin(request: EnrolmentRequest) -> dict[str, Any]:
        return await service.begin(request)

    @router.post("/{enrolment}/activation")
    async def activate(
        enrolment: Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")], request: ActivationRequest
    ) -> dict[str, Any]:
        return await service.activate(enrolment, request)

    return router
