"""POST /oauth2/token and POST /oauth2/challenge."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from umec_core.clock import Clock
from umec_core.http import plain_route
from umec_identity.authentication.challenge import Challenges
from umec_identity.limits import Buckets
from umec_identity.tokens.service import Tokens
from umec_identity.wire import answering, oauth_request

__all__ = ["router"]


def router(tokens: Tokens, challenges: Challenges, *, addresses: Buckets, clock: Clock) -> APIRouter:
    """Return the endpoints."""
    api = APIRouter()

    async def token(request: Request) -> JSONResponse:
        async def work() -> Mapping[str, Any]:
            asked = await oauth_request(request)
            addresses.take(asked.address)
            return (await tokens.issue(asked)).answer

        return await answering(work)

    async def challenge(request: Request) -> JSONResponse:
        async def work() -> Mapping[str, Any]:
            asked = await oauth_request(request, form=False)
            addresses.take(asked.address)
            return {"attestation_challenge": challenges.make(clock())}

        return await answering(work)

    api.routes += [plain_route("POST", "/oauth2/token", token), plain_route("POST", "/oauth2/challenge", challenge)]
    return api
