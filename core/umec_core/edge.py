"""The outermost layer of an application: request ids, the cap on bodies, the access line, counters, the last net."""

import asyncio
import secrets
from functools import lru_cache
from time import perf_counter
from typing import Final

import structlog
from prometheus_client import Counter, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from umec_core import metrics
from umec_core.errors import Kind, UmecError
from umec_core.problems import MEDIA_TYPE

__all__ = ["BodyTooLarge", "Edge", "RequestTooSlow"]

log = structlog.get_logger("umec.http")

INTERNAL: Final = (
    b'{"type":"urn:umec:problem:internal-error","title":"Internal error","status":500,'
    b'"detail":"The request could not be answered; the log of the service says why.","code":"internal-error"}'
)


BODY_SECONDS: Final = 30.0
"""How long the next piece of a body may take: long enough for a node behind a bad radio link."""

GONE: Final = 499
"""The status in log and counters where the client left before it was answered."""


class BodyTooLarge(UmecError):
    """The body of a request is longer than this API reads."""

    code = "body-too-large"
    kind = Kind.TOO_LARGE


class RequestTooSlow(UmecError):
    """The request did not come in time."""

    code = "request-too-slow"
    kind = Kind.TIMEOUT


class Edge:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, *, name: str, max_body: int) -> None:
        self._app = app
        self._name = name
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, count it and log one line."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._max_body)
        with structlog.contextvars.bound_contextvars(request_id=exchange.request_id):
            began = perf_counter()
            try:
                await self._app(scope, exchange.receive, exchange.send)
            except ClientDisconnect:
                exchange.status = exchange.status or GONE
            except Exception:
                log.exception("unforeseen error", app=self._name, method=scope["method"], route=exchange.route)
                await exchange.fail()
            finally:
                self._record(exchange, perf_counter() - began)

    def _record(self, exchange: "_Exchange", seconds: float) -> None:
        method = str(exchange.scope["method"])
        requests, clock = _counters(self._name, method, exchange.route, exchange.status)
        requests.inc()
        clock.observe(seconds)
        milliseconds = round(seconds * 1000, 2)
        log.info(
            "request", app=self._name, method=method, route=exchange.route, status=exchange.status, ms=milliseconds
        )


@lru_cache(maxsize=1024)
def _counters(app: str, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Return what counts such requests: finding it takes longer than counting."""
    return metrics.REQUESTS.labels(app, method, route, str(status)), metrics.SECONDS.labels(app, route)


class _Exchange:
    """One request and its answer, as they pass by."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body: int) -> None:
        self.scope = scope
        self.request_id = secrets.token_hex(8)
        self.status = 0
        self._receive = receive
        self._send = send
        self._left = max_body
        self._complete = False
        self._max_body = max_body

    @property
    def route(self) -> str:
        """The path template that answered; never the path itself, which a client chooses."""
        return str(getattr(self.scope.get("route"), "path", "unmatched"))

    async def receive(self) -> Message:
        message = await self._next()
        if message["type"] == "http.request":
            self._complete = not message.get("more_body", False)
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise BodyTooLarge(f"the body has more than {self._max_body} bytes")
        return message

    async def _next(self) -> Message:
        if self._complete:  # only the end of the connection can still come, at any time
            return await self._receive()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await self._receive()
        except TimeoutError:
            raise RequestTooSlow(f"the next piece of the body has to come within {BODY_SECONDS:g} seconds") from None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", []),
                (b"x-request-id", self.request_id.encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
        await self._send(message)

    async def fail(self) -> None:
        """Answer 500 without a word about the inside, unless an answer is already on its way."""
        if self.status:
            return
        self.status = 500
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"x-request-id", self.request_id.encode())]
        await self._send({"type": "http.response.start", "status": 500, "headers": headers})
        await self._send({"type": "http.response.body", "body": INTERNAL})
