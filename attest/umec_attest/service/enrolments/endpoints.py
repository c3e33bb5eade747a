"""POST /attest/v1/enrolments and …/{id}/activation: open to nodes, which have no credential yet."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from umec_attest.service.callers import address_of
from umec_attest.service.enrolments.schemas import ActivationRequest, EnrolmentRequest
from umec_attest.service.enrolments.service import EnrolmentService

__all__ = ["enrolments_router"]


def enrolments_router(service: EnrolmentService) -> APIRouter:
    """Return the routes of enrolments."""
    router = APIRouter(prefix="/attest/v1/enrolments")

    @router.post("", status_code=201)
    async def begin(request: EnrolmentRequest, http: Request) -> dict[str, Any]:
        return await service.begin(request, address=address_of(http))

    @router.post("/{enrolment}/activation")
    async def activate(
        enrolment: Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")], request: ActivationRequest, http: Request
    ) -> dict[str, Any]:
        return await service.activate(enrolment, request, address=address_of(http))

    return router
