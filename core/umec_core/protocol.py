"""HTTP/1.1 of one connection: bounded in size and time, and what the TLS peer proved.

What is no HTTP is answered with a problem and the connection ends:

    HttpMalformed      http-malformed      400
    HeadTooLarge       head-too-large      413
    RequestTooSlow     request-too-slow    408  (of a head; `umec_core.edge` says it of a body)
"""

import asyncio
import json
from http import HTTPStatus
from typing import Final, Literal

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from umec_core.edge import RequestTooSlow
from umec_core.errors import Invalid, Kind, UmecError
from umec_core.problems import MEDIA_TYPE, PROBLEMS, problem_details

__all__ = ["HeadTooLarge", "HttpMalformed", "Protocol"]

MAX_HEAD: Final = 64 * 1024
"""Octets of a request line with its headers: the largest of ours carries four JWTs of at most 8 KB each."""

MAX_HEADERS: Final = 100
"""Headers of a request; a request of ours has about a dozen."""

HEAD_SECONDS: Final = 10.0
"""How long a client may take for the head of a request, and for the first one after the TLS handshake to begin."""

AROUND: Final = 8
"""Octets around one octet of a body (a chunk of one has 5) that do not count as more than the head."""

DISCARD_SECONDS: Final = 5.0
"""How long what is left of a body may still come after its answer; then the connection ends. A client that is told
`body-too-large` while it is still sending has this time to read it."""


class HttpMalformed(Invalid):
    """What came is no HTTP/1.1 request."""

    code = "http-malformed"


class HeadTooLarge(UmecError):
    """The request line and the headers are larger than this server reads."""

    code = "head-too-large"
    kind = Kind.TOO_LARGE


MAX_JOINED: Final = 16 * 1024 - 512
"""Octets of the first piece of a body that is sent with its head: one TLS record holds both."""


class Protocol(HttpToolsProtocol):
    """Shows the peer's certificate to the application. The server replaces what a request could say about it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin: the head of the first request has to come in time."""
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self.app_state = {**self.app_state, "client_certificate": certificate}
        self._phase: Literal["between", "head", "body"] = "between"
        self._head = self._headers = self._around = 0
        self._fault: UmecError | None = None
        self._timer: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._within(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, with every timer."""
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which keeps a header or a trailer that is not complete, and says nothing of it."""
        self._around += len(data)
        if self._phase == "between" and self._timer is None:
            self._within(HEAD_SECONDS)
        super().data_received(data)
        if self._around > MAX_HEAD and not self.transport.is_closing():
            self._refuse(_too_large())

    def on_message_begin(self) -> None:
        """Begin a request: its head has to come in time."""
        self._phase = "head"
        self._head = self._headers = self._around = 0
        self._within(HEAD_SECONDS)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request target."""
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. Trailers come here as well: they are counted, and are no headers (RFC 9110, 6.5.1)."""
        self._headers += 1
        self._grow(len(name) + len(value))
        if self._phase == "head":
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the application, or queue it behind the one that is answering."""
        self._phase = "body"
        self._unwatch()
        if sum(name == b"host" for name, _ in self.headers) != 1 and self.parser.get_http_version() != "1.0":
            self._fault = HttpMalformed("a request names one host (RFC 9112, 3.2)")
            raise HttpParserError(self._fault.detail)
        super().on_headers_complete()
        self.cycle.transport = _Joined(self.transport, self.cycle, self.loop)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body; what comes around it may be some times larger, where the chunks are small."""
        self._around = max(0, self._around - AROUND * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._phase = "between"
        self._unwatch()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """After an answer, what is left of its request has to come in time."""
        super().on_response_complete()
        if self._phase == "body" and self.cycle.response_complete:
            self._within(DISCARD_SECONDS)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - ours says more
        """Answer what the parser refuses."""
        self._refuse(self._fault or HttpMalformed("this is no HTTP/1.1 request"))

    def _grow(self, size: int) -> None:
        self._head += size
        if self._head > MAX_HEAD or self._headers > MAX_HEADERS:
            self._fault = _too_large()
            raise HttpParserError(self._fault.detail)

    def _refuse(self, error: UmecError) -> None:
        """Answer and end; where an application has begun to answer, only end: two answers must not mix."""
        self._unwatch()
        if self._may_answer():
            self.transport.write(_answer(error))
        self.transport.close()  # in TLS that is a farewell, which a peer can leave unanswered
        self._timer = self.loop.call_later(DISCARD_SECONDS, self.transport.abort)

    def _may_answer(self) -> bool:
        """Whether nothing is being answered; an application that has not begun to may not any more."""
        if self.cycle is None or self.cycle.response_complete:
            return True
        if self.pipeline or self.cycle.response_started:
            return False
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return True

    def _within(self, seconds: float) -> None:
        self._unwatch()
        self._timer = self.loop.call_later(seconds, self._too_late, seconds)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self, seconds: float) -> None:
        self._timer = None
        if self.flow.read_paused:  # we do not read: the client is not to blame
            self._within(seconds)
        elif self._phase == "head":
            self._refuse(RequestTooSlow(f"the head of a request has to come within {seconds:g} seconds"))
        else:
            self.transport.close()


class _Joined:
    """The transport as an answer sees it: its head waits for its body until the loop turns, and they go as one."""

    __slots__ = ("_cycle", "_head", "_loop", "_transport", "_turn")

    def __init__(
        self, transport: asyncio.Transport, cycle: RequestResponseCycle, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._transport = transport
        self._cycle = cycle
        self._loop = loop
        self._head: bytes | None = None
        self._turn: asyncio.Handle | None = None

    def write(self, data: bytes) -> None:
        """Send what comes, the head (the first after `response_started`) a moment later."""
        if self._turn is None and self._cycle.response_started:
            self._head, self._turn = data, self._loop.call_soon(self._flush)
        elif self._head is not None and len(data) <= MAX_JOINED:
            data, self._head = self._head + data, None
            self._transport.write(data)
        else:
            self._flush()
            self._transport.write(data)

    def close(self) -> None:
        """Close, after what was written."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Tell whether the connection ends."""
        return self._transport.is_closing()

    def _flush(self) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            if not self._transport.is_closing():
                self._transport.write(head)


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(f"a request has at most {MAX_HEADERS} headers, and {MAX_HEAD} octets beside its body")


def _answer(error: UmecError) -> bytes:
    body = json.dumps(problem_details(error)).encode()
    status = HTTPStatus(PROBLEMS[error.kind].status)
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"content-type: {MEDIA_TYPE}",
        f"content-length: {len(body)}",
        "x-content-type-options: nosniff",
        "connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode() + body
