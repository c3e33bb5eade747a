"""POST /oauth2/introspect (RFC 7662) and POST /oauth2/revoke (RFC 7009), for clients that authenticate."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from umec_identity.limits import Buckets
from umec_identity.revocation.judge import TokenJudge
from umec_identity.wire import answering, oauth_request

__all__ = ["router"]


def router(judge: TokenJudge, *, addresses: Buckets) -> APIRouter:
    """Return the endpoints."""
    api = APIRouter(prefix="/oauth2")

    @api.post("/introspect")
    async def introspect(request: Request) -> JSONResponse:
        async def work() -> Mapping[str, Any]:
            asked = await oauth_request(request)
            addresses.take(asked.address)
            return await judge.introspect(asked)

        return await answering(work)

    @api.post("/revoke")
    async def revoke(request: Request) -> JSONResponse:
        async def work() -> Mapping[str, Any]:
            asked = await oauth_request(request)
            addresses.take(asked.address)
            await judge.revoke(asked)
            return {}

        return await answering(work)

    return api
