# ruff: noqa: A005 - always imported as umec_core.http
"""The HTTP edge that every service shares: problems, limits, health, metrics, and who asks.

create_app(title, routers, ready=…)     a FastAPI application that fails closed and shows no internals
require(verifier, "scope", …)           a dependency: the verified Principal, or 401 / 403 as problem+json
presented(request, base)                what a request shows, for those who ask a verifier themselves
plain_route(method, path, answer)       an endpoint that is asked so often that it does without the framework
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from umec_core import metrics
from umec_core.edge import BodyTooLarge, Edge
from umec_core.errors import Invalid, Kind, UmecError
from umec_core.intake import Intake
from umec_core.problems import MEDIA_TYPE, problem_details

if TYPE_CHECKING:
    from umec_core.principal import Principal
    from umec_core.tokens import Presented, TokenVerifier

__all__ = [
    "MAX_BODY",
    "BodyTooLarge",
    "ContentTypeWrong",
    "QueryInvalid",
    "client_certificate",
    "create_app",
    "judges_query",
    "plain_route",
    "presented",
    "problem_response",
    "require",
    "require_json",
]

MAX_BODY: Final = 1024 * 1024
"""Bytes of a request body, unless an application says otherwise: our largest ordinary body is an AppD."""

MAX_FAULTS: Final = 20
"""Faults of an input that a problem lists."""

MAX_NAME: Final = 64
"""Characters of a member's name that a problem repeats."""

NO_TELEMETRY: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""What goes out is for `umec_core.telemetry` to say, and not for variables of the environment."""

Ready = Callable[[], Awaitable[None]]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class QueryInvalid(Invalid):
    """A query parameter that is unknown here, or given twice."""

    code = "query-invalid"


class ContentTypeWrong(Invalid):
    """The body is announced as something else than what is read here."""

    code = "content-type-wrong"


class _Challenge(Exception):
    """A refusal by `require`, with the header that tells the client how to do better."""

    def __init__(self, error: UmecError, authenticate: str) -> None:
        super().__init__(error.detail)
        self.error = error
        self.authenticate = authenticate


def create_app(
    title: str,
    routers: Sequence[APIRouter],
    *,
    ready: Ready | None = None,
    lifespan: Lifespan | None = None,
    max_body: int = MAX_BODY,
    counters: bool = False,
) -> FastAPI:
    """Return the application of one listener.

    Errors are problem+json with a stable `code`; an input that does not validate is 400 `invalid-input` and is not
    repeated, a query parameter that the endpoint does not read is 400 `query-invalid`; an unforeseen error is 500
    `internal-error` without a trace. `/healthz` says that the process answers, `/readyz` that `ready()` does not raise,
    `/metrics` what was counted. Bodies over `max_body` bytes are refused while they are read, and JSON that is not
    I-JSON before anything else looks at it (`umec_core.intake`).
    """
    app = FastAPI(
        title=title, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan, telemetry=NO_TELEMETRY
    )
    app.router.redirect_slashes = False  # to where the client's own Host header says
    app.add_exception_handler(UmecError, _on_umec_error)
    app.add_exception_handler(_Challenge, _on_challenge)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    plain = [route for router in routers for route in router.routes if type(route) is Route]
    app.add_middleware(_Direct, routes=plain)
    app.add_middleware(Intake)
    app.add_middleware(Edge, name=title, max_body=max_body)
    app.include_router(_probes(ready))
    if counters:
        app.include_router(_counters())
    for router in routers:
        app.include_router(router, dependencies=[Depends(_known_query)])
    app.router.routes[:0] = plain  # they are asked most, and what is included is matched twice
    return app


def plain_route(method: str, path: str, answer: Callable[[Request], Awaitable[Response]]) -> Route:
    """Return an endpoint that reads its request itself, query included, for the `routes` of a router.

    Errors are answered as everywhere; what FastAPI does around an endpoint takes longer than many an answer.
    """
    endpoint = _Plain(method, answer)
    endpoint.route = Route(path, endpoint, methods=[method])
    endpoint.route.methods = {method}  # Starlette takes HEAD, too, where it takes GET
    return endpoint.route


class _Direct:
    """ASGI middleware that answers what plain routes are for by itself; another method or path takes the usual way."""

    def __init__(self, app: ASGIApp, *, routes: Sequence[Route]) -> None:
        self._app = app
        self._plain = {
            (method, route.path): route.endpoint
            for route in routes
            if isinstance(route.endpoint, _Plain) and "{" not in route.path
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        plain = self._plain.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if plain is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await plain.response(scope, receive)
        except Exception as error:
            handlers = scope["app"].exception_handlers
            handler = next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), None)
            if handler is None:
                raise
            response = handler(Request(scope, receive), error)
        await response(scope, receive, send)


class _Plain:
    route: Route

    def __init__(self, method: str, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._method = method
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self.route  # for the access line and the counters
        if scope["method"] != self._method:  # a router that includes this route makes another of it
            raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": self._method})
        response = await self.response(scope, receive)
        await response(scope, receive, send)

    async def response(self, scope: Scope, receive: Receive) -> Response:
        scope["route"] = self.route
        return await self._answer(Request(scope, receive))


def problem_response(error: UmecError, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error as problem+json, with Retry-After where the error says when."""
    body = problem_details(error)
    if error.retry_after is not None:
        headers = {"Retry-After": str(math.ceil(error.retry_after)), **(headers or {})}
    return JSONResponse(body, status_code=body["status"], media_type=MEDIA_TYPE, headers=headers)


def require_json(request: Request) -> None:
    """Raise `ContentTypeWrong` unless the body is announced as JSON: for endpoints that read it themselves."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ContentTypeWrong("the body is application/json here")


async def judges_query() -> None:
    """Mark, as a dependency, an endpoint that judges its query itself."""


async def _known_query(request: Request) -> None:
    """Refuse what an endpoint does not read: a filter that is misspelt must not return everything."""
    given = [name for name, _ in request.query_params.multi_items()]
    if not given:
        return
    dependant = request.scope["route"].dependant
    if any(one.call is judges_query for one in dependant.dependencies):
        return
    known = {parameter.alias for parameter in dependant.query_params}
    if len(set(given)) != len(given) or not known.issuperset(given):
        read = f"Known: {', '.join(sorted(known))}." if known else "None is known here."
        raise QueryInvalid("a query parameter is unknown here, or given twice", advice=read)


def client_certificate(request: Request) -> bytes | None:
    """Return the DER of the certificate that the TLS peer proved, or None where it showed none."""
    certificate = request.scope.get("state", {}).get("client_certificate")
    return certificate if isinstance(certificate, bytes) else None


def presented(request: Request, base: str) -> "Presented":
    """Return what a request shows; raises `TokenMissing` if that is more than one token or proof.

    `base` is the listener's own URL without a path. What the Host header says is the client's choice: a proof that was
    made for another server would be good here.
    """
    from umec_core.tokens import Presented, TokenMissing  # noqa: PLC0415 - keeps this module light for public APIs

    values, proofs = request.headers.getlist("authorization"), request.headers.getlist("dpop")
    if len(values) > 1 or len(proofs) > 1:
        raise TokenMissing("the request carries more than one token or proof")
    scheme, _, token = values[0].partition(" ") if values else ("", "", "")
    return Presented(
        scheme=scheme or None,
        token=token.strip() or None,
        proof=proofs[0] if proofs else None,
        method=request.method,
        url=f"{base}{_sent_path(request)}",
        client_certificate=client_certificate(request),
    )


def _sent_path(request: Request) -> str:
    """Return the path as it was sent: a client writes its proof for that, not for what it decodes to."""
    raw = request.scope.get("raw_path")
    return quote(request.scope["path"]) if raw is None else raw.split(b"?", 1)[0].decode("latin-1")


def require(
    verifier: "TokenVerifier", *scopes: str, either: bool = False
) -> Callable[[Request], Awaitable["Principal"]]:
    """Return a dependency that lets in who shows a good access token with all of `scopes`, or with `either` of them.

    Others get 401 (`token-…`, `dpop-…`, `standing-…`) or 403 (`token-scope`) as problem+json with WWW-Authenticate
    (RFC 6750, RFC 9449, RFC 9728).
    """

    async def authenticated(request: Request) -> "Principal":
        try:
            principal = await verifier.verify(presented(request, verifier.base))
            if either:
                _require_one(principal, scopes)
            else:
                principal.require(*scopes)
        except UmecError as error:
            metrics.CHECKS.labels(request.app.title, error.code).inc()
            if error.kind not in {Kind.UNAUTHENTICATED, Kind.FORBIDDEN}:
                raise
            raise _Challenge(error, _www_authenticate(verifier, request, error, scopes)) from error
        metrics.CHECKS.labels(request.app.title, "good").inc()
        return principal

    return authenticated


def _require_one(principal: "Principal", scopes: Sequence[str]) -> None:
    from umec_core.principal import TokenScope  # noqa: PLC0415 - keeps this module light for public APIs

    if principal.scopes.isdisjoint(scopes):
        raise TokenScope(f"the token has none of the scopes {' '.join(scopes)}")


def _www_authenticate(verifier: "TokenVerifier", request: Request, error: UmecError, scopes: Sequence[str]) -> str:
    """Return the challenges: DPoP (which also fits certificate-bound tokens) and Bearer, with what was wrong."""
    parameters = [f'resource_metadata="{verifier.resource_metadata}"'] if verifier.resource_metadata else []
    if "authorization" in request.headers:
        reason = "insufficient_scope" if error.kind is Kind.FORBIDDEN else "invalid_token"
        parameters.append(f'error="{reason}"')
    if scopes:
        parameters.append(f'scope="{" ".join(scopes)}"')
    dpop = ", ".join(['algs="ES256"', *parameters])
    return f"DPoP {dpop}, Bearer {', '.join(parameters)}".rstrip()


def _on_umec_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, UmecError)  # noqa: S101 - registered for this type only
    return problem_response(error)


def _on_challenge(_request: Request, challenge: Exception) -> Response:
    assert isinstance(challenge, _Challenge)  # noqa: S101 - registered for this type only
    return problem_response(challenge.error, {"WWW-Authenticate": challenge.authenticate})


def _on_invalid(_request: Request, error: Exception) -> Response:
    """Name the faults by place and kind. What was sent is not repeated: it may be a secret in the wrong member."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type only
    faults = [f"{_place(fault)}: {fault['type']}" for fault in error.errors()[:MAX_FAULTS]]
    return problem_response(Invalid("; ".join(faults) or "the request does not validate"))


def _place(fault: Any) -> str:  # noqa: ANN401 - pydantic gives dictionaries without a type
    return ".".join(str(step)[:MAX_NAME] for step in fault["loc"])


def _on_http_error(_request: Request, error: Exception) -> Response:
    """Answer a refusal of the framework itself (404, 405, 415 …): the code is the phrase of the status."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type only
    if isinstance(error.__cause__, UmecError):
        return problem_response(error.__cause__)
    status = HTTPStatus(error.status_code)
    code = "invalid-input" if status == HTTPStatus.BAD_REQUEST else status.phrase.lower().replace(" ", "-")
    body = {
        "type": f"urn:umec:problem:{code}",
        "title": status.phrase,
        "status": int(status),
        "detail": status.description or status.phrase,
        "code": code,
    }
    headers = dict(error.headers or {})
    return JSONResponse(body, status_code=int(status), media_type=MEDIA_TYPE, headers=headers)


def _probes(ready: Ready | None) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz() -> dict[str, str]:
        if ready is not None:
            await ready()
        return {"status": "ready"}

    return router


def _counters() -> APIRouter:
    """What was counted, on one listener of a process: it tells of all of them."""
    router = APIRouter()

    @router.get("/metrics")
    async def show_metrics() -> Response:
        content, media_type = metrics.render()
        return Response(content, headers={"content-type": media_type})

    return router
