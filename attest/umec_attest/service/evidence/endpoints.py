"""POST /attest/v1/challenges and /attest/v1/evidence: a node proves itself by its TPM, not by a token.

Every node asks them every round, so they are plain routes. What rounds said over time is below /attest/v1/nodes/{node}.
"""

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from umec_attest.service.access import Access
from umec_attest.service.callers import address_of
from umec_attest.service.evidence.history import History
from umec_attest.service.evidence.schemas import ChallengeRequest, EvidenceRequest
from umec_attest.service.evidence.service import RoundService
from umec_attest.service.nodes.service import NodeService
from umec_attest.service.wire import Id, Sha256, WireModel
from umec_core.http import QueryInvalid, plain_route, require_json
from umec_core.principal import Principal

__all__ = ["history_router", "rounds_router"]

Body = TypeVar("Body", bound=WireModel)


def rounds_router(service: RoundService) -> APIRouter:
    """Return the routes of rounds."""
    router = APIRouter()

    async def challenge(request: Request) -> JSONResponse:
        asked = await _read(request, ChallengeRequest)
        return JSONResponse(await service.challenge(asked.node))

    async def submit(request: Request) -> JSONResponse:
        evidence = await _read(request, EvidenceRequest)
        return JSONResponse(await service.submit(evidence, address=address_of(request)))

    router.routes += [
        plain_route("POST", "/attest/v1/challenges", challenge),
        plain_route("POST", "/attest/v1/evidence", submit),
    ]
    return router


def history_router(history: History, nodes: NodeService, access: Access) -> APIRouter:
    """Return the routes of what rounds said; a tenant sees that of its own nodes."""
    router = APIRouter(prefix="/attest/v1/nodes/{node}")
    reader = Annotated[Principal, Depends(access.require("attest:read"))]

    @router.get("/history")
    async def rounds(
        node: Id, principal: reader, before: Annotated[int | None, Query(ge=1, lt=2**53)] = None
    ) -> dict[str, Any]:
        await nodes.read(node, principal.tenant)
        return await history.rounds(node, before)

    @router.get("/evidence/{sha256}")
    async def evidence(node: Id, sha256: Sha256, principal: reader) -> dict[str, Any]:
        await nodes.read(node, principal.tenant)
        return await history.evidence(node, sha256)

    return router


async def _read(request: Request, kind: type[Body]) -> Body:
    content = await request.body()
    require_json(request)
    if request.scope["query_string"]:
        raise QueryInvalid("a query parameter is unknown here", advice="None is known here.")
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults]) from None
