"""POST /oauth2/token and POST /oauth2/challenge."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.routing import Route

from umec_core.clock import Clock
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

    api.routes.append(_plain("/oauth2/token", token))
    api.routes.append(_plain("/oauth2/challenge", challenge))
    return api


def _plain(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    """Return a route whose endpoint reads its request itself: what FastAPI does before would be done for nothing."""

    async def named(request: Request) -> Response:
        request.scope["route"] = route  # for the access line and the counters
        return await endpoint(request)

    route = Route(path, named, methods=["POST"])
    return route
