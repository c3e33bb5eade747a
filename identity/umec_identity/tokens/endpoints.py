"""POST /oauth2/token and POST /oauth2/challenge."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

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

    api.routes += [_Plain("/oauth2/token", token).route, _Plain("/oauth2/challenge", challenge).route]
    return api


class _Plain:
    """An endpoint that reads its request itself: what a framework does around it would be done for nothing."""

    def __init__(self, path: str, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._answer = answer
        self.route: Final = Route(path, self, methods=["POST"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self.route  # for the access line and the counters
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)
