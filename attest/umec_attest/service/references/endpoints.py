"""POST and GET /attest/v1/reference-sets."""

from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request

from umec_attest.reference import MAX_GRACE, PACKED_TYPE, unpack
from umec_attest.service.access import Access
from umec_attest.service.references.service import ReferenceService
from umec_core.principal import Principal

__all__ = ["references_router"]

_LONGEST: Final = int(MAX_GRACE.total_seconds())


def references_router(service: ReferenceService, access: Access) -> APIRouter:
    """Return the routes of reference sets; the body of a POST is the DSSE envelope as it was signed, maybe gzipped.

    It is unpacked for those only who may publish sets, and up to a limit. `grace_seconds` ends its grace sooner.
    """
    router = APIRouter(prefix="/attest/v1/reference-sets")

    @router.post("", status_code=201)
    async def install(
        request: Request,
        principal: Annotated[Principal, Depends(access.require("attest:admin"))],
        grace_seconds: Annotated[int | None, Query(ge=0, le=_LONGEST)] = None,
    ) -> dict[str, Any]:
        body = await request.body()
        packed = request.headers.get("content-type", "").partition(";")[0].strip().lower() == PACKED_TYPE
        grace = None if grace_seconds is None else timedelta(seconds=grace_seconds)
        return await service.install(unpack(body) if packed else body, actor=principal.subject, grace=grace)

    @router.get("", dependencies=[Depends(access.require("attest:read"))])
    async def show() -> dict[str, Any]:
        return {"reference_sets": await service.list()}

    return router
