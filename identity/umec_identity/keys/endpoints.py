"""GET /oauth2/jwks: the keys that access tokens and signing identity tokens are verified with."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from umec_identity.keys.ring import KeyRing

__all__ = ["router"]


def router(ring: KeyRing) -> APIRouter:
    """Return the endpoint."""
    api = APIRouter(prefix="/oauth2")

    @api.get("/jwks")
    async def jwks() -> JSONResponse:
        return JSONResponse(ring.published().jwks(), headers={"Cache-Control": "max-age=60"})

    return api
