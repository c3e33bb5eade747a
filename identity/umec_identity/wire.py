"""From refusals to answers of the /oauth2 endpoints (RFC 6749, 5.2): `error`, `error_description`, and our `code`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from fastapi import Request
from fastapi.responses import JSONResponse

from umec_core.errors import Kind, UmecError
from umec_core.http import client_certificate
from umec_core.problems import PROBLEMS
from umec_identity.errors import IdentityError, RequestInvalid, TooManyRequests
from umec_identity.forms import OAuthRequest, read_body

__all__ = ["NO_STORE", "answering", "oauth_error", "oauth_request"]

NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
"""Answers that carry tokens, or say something about them, are not kept (RFC 6749, 5.1)."""

_by_code: Final[dict[str, tuple[str, int]]] = {
    "dpop-invalid": ("invalid_dpop_proof", 400),
    "dpop-replayed": ("invalid_dpop_proof", 400),
    "standing-fallen": ("invalid_client", 401),
}
"""Errors of other packages: their name and status here."""

_by_kind: Final[dict[Kind, tuple[str, int]]] = {
    Kind.UNAUTHENTICATED: ("invalid_client", 401),
    Kind.FORBIDDEN: ("unauthorized_client", 400),
    Kind.UNAVAILABLE: ("temporarily_unavailable", 503),
    Kind.TOO_MANY: ("temporarily_unavailable", 429),
    Kind.TOO_LARGE: ("invalid_request", 413),
    Kind.TIMEOUT: ("invalid_request", 408),
}


def oauth_error(error: UmecError) -> JSONResponse:
    """Return a refusal as RFC 6749 words it; 401 names no scheme, because no Authorization header was expected."""
    name, status = _by_code.get(error.code) or _by_kind.get(error.kind, ("invalid_request", 400))
    if isinstance(error, IdentityError):
        name = error.oauth
    body = {"error": name, "error_description": _ascii(error.detail), "code": error.code}
    if error.advice is not None:
        body["advice"] = error.advice
    headers = dict(NO_STORE)
    if status == PROBLEMS[Kind.UNAUTHENTICATED].status:
        headers["WWW-Authenticate"] = f'Bearer error="{name}"'
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(error.retry_after)
    return JSONResponse(body, status_code=status, headers=headers)


def _ascii(text: str) -> str:
    """Return a text with the characters that RFC 6749 allows in error_description."""
    return "".join(mark if " " <= mark <= "~" and mark not in '"\\' else "'" for mark in text)


async def oauth_request(request: Request, *, form: bool = True) -> OAuthRequest:
    """Return a request to an /oauth2 endpoint, its shape checked."""
    if request.scope["query_string"]:
        raise RequestInvalid("parameters are not sent in the URI, where logs keep them (RFC 6749, 3.2)")
    return OAuthRequest.build(
        await read_body(request.stream()) if form else b"",
        list(request.headers.items()),
        certificate=client_certificate(request),
        address=request.client.host if request.client is not None else "unix",
        form=form,
    )


async def answering(work: Callable[[], Awaitable[Mapping[str, Any]]]) -> JSONResponse:
    """Return what `work` answers, or its refusal."""
    try:
        return JSONResponse(dict(await work()), headers=NO_STORE)
    except UmecError as error:
        return oauth_error(error)
