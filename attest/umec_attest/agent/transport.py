"""HTTP over TLS as the agent needs it: one origin's certificate authority, no redirects, no cookies, no environment.

httpcore is the half of httpx that speaks HTTP; the other half, with what it imports, is as large as the agent itself.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import httpcore

from umec_attest.agent.errors import AnswerInvalid
from umec_attest.agent.tls import NodeCredential, tls_context
from umec_core.connections import Connections
from umec_core.remote import RemoteUnavailable, refusal

__all__ = ["CONNECT_SECONDS", "MAX_CONTENT", "UNAVAILABLE", "Answer", "Transport", "json_body"]

MAX_CONTENT: Final = 1024 * 1024
"""Bytes of an answer; what the agent itself asks for is much shorter, and a node has no memory to give away."""
CONNECT_SECONDS: Final = 5.0
DEADLINE_SECONDS: Final = 15.0
"""For all of one exchange: half a round. A verifier that needs longer is as good as none."""
KEPT_SECONDS: Final = 60.0
"""How long an idle connection is kept: until the next round, which a handshake would cost more than all else."""

UNAVAILABLE: Final = (
    httpcore.ConnectionNotAvailable,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    TimeoutError,
    OSError,  # ssl.SSLError is one
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered; names of headers are in lower case."""

    path: str
    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)


class Transport:
    """Connections that trust exactly `ca` (PEM), and show the node's certificate if there is one."""

    def __init__(
        self, ca: str, credential: NodeCredential | None = None, *, deadline: float = DEADLINE_SECONDS
    ) -> None:
        self._ca = ca
        self._deadline = deadline
        self._credential = credential
        self._open: httpcore.AsyncConnectionPool | None = None

    async def close(self) -> None:
        """Close the connections; the key of the certificate goes with them."""
        pool, self._open = self._open, None
        if pool is not None:
            await pool.aclose()

    async def send(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> Answer:
        """Send one request; `check` refuses everything but 2xx.

        Raises RemoteUnavailable (no answer in time), AnswerInvalid (a longer one than `MAX_CONTENT`), RemoteRefused.
        """
        try:
            async with asyncio.timeout(self._deadline):
                answer = await self._exchange(method, url, content, headers or {})
        except UNAVAILABLE as error:
            raise RemoteUnavailable(
                f"{method} {url}: {str(error) or type(error).__name__}",
                advice="is the platform up, and its CA the pinned one?",
            ) from error
        if check and answer.status >= 300:  # what is below 200 is no answer yet
            raise refusal(answer.status, answer.content, answer.headers.get("retry-after"))
        return answer

    async def connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection after its handshake, for somebody else's requests. Raises RemoteUnavailable."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await asyncio.open_connection(host, port, ssl=tls_context(self._ca, self._credential))
        except UNAVAILABLE as error:
            raise RemoteUnavailable(f"{host}:{port}: {str(error) or type(error).__name__}") from error

    async def _exchange(self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        given = [(name.encode(), value.encode()) for name, value in headers.items()]
        patience = {"connect": CONNECT_SECONDS}
        body = bytearray()
        async with self._pool().stream(
            method, url, headers=given, content=content, extensions={"timeout": patience}
        ) as response:
            async for part in response.aiter_stream():
                body += part
                if len(body) > MAX_CONTENT:
                    raise AnswerInvalid(f"{urlsplit(url).path} answers more than {MAX_CONTENT} bytes")
            named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            return Answer(urlsplit(url).path, response.status, named, bytes(body))

    def _pool(self) -> httpcore.AsyncConnectionPool:
        if self._open is None:
            self._open = httpcore.AsyncConnectionPool(
                ssl_context=tls_context(self._ca, self._credential),
                max_connections=8,
                keepalive_expiry=KEPT_SECONDS,
                network_backend=Connections(),
            )
        return self._open


def json_body(value: Mapping[str, object]) -> tuple[bytes, dict[str, str]]:
    """Return content and headers of a body in JSON."""
    return json.dumps(value).encode(), {"Content-Type": "application/json"}
