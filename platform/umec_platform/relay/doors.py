"""The way to the site through the agent of this node: connections that show its certificate, tokens bound to it."""

import asyncio
import json
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import httpcore
import httpx

from umec_core.errors import Unavailable
from umec_core.remote import RemoteRefused

__all__ = ["AgentSilent", "AgentSocket", "site_client"]

ASK_SECONDS: Final = 30.0
"""For a token: the agent asks the authorization server, and its TPM, when it has none."""
OPEN_SECONDS: Final = 15.0
"""For a door: the agent does a handshake with a server of the site."""
MAX_LINE: Final = 64 * 1024
"""Octets of an answer of the agent; a token has a thousand."""
PATIENCE: Final = httpx.Timeout(20.0, connect=OPEN_SECONDS)
"""Seconds without anything of an answer: twice as long as an ask for requests waits."""
MAX_CONNECTIONS: Final = 16
"""Of one client: what the platform asks for at once waits for nothing else."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class AgentSilent(Unavailable):
    """The agent of this node does not answer at its socket."""

    code = "agent-silent"


class AgentSocket:
    """The agent, at the socket in its state directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "agent.sock"
        self._left = 0

    @property
    def left(self) -> int:
        """How often doors were left."""
        return self._left

    def leave_doors(self) -> None:
        """Have nobody go through the present doors again: they show a certificate that has a successor."""
        self._left += 1

    async def token(self, resource: str, scope: str) -> str:
        """Return a token for one API; raises `AgentSilent`, and `RemoteRefused` with the agent's code."""
        request = {"op": "token", "resource": resource, "scope": scope}
        (_, writer), said = await self._exchange(request, ASK_SECONDS)
        writer.close()
        return str(said["token"])

    async def door(self, host: str, port: int) -> Streams:
        """Return a connection to a server of the site that shows the node's certificate; raises as `token`."""
        streams, _ = await self._exchange({"op": "door", "host": host, "port": port}, OPEN_SECONDS)
        return streams

    async def _exchange(self, request: Mapping[str, Any], seconds: float) -> tuple[Streams, Mapping[str, Any]]:
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE)
                try:
                    writer.write(json.dumps(request).encode() + b"\n")
                    said = _checked(json.loads(await reader.readline()))
                except BaseException:
                    writer.close()
                    raise
        except (OSError, ValueError, TimeoutError) as error:
            raise AgentSilent(
                f"no agent answers at {self._path}: {error or type(error).__name__}",
                advice="is `umec node run` running?",
            ) from error
        return (reader, writer), said


def _checked(said: Any) -> Mapping[str, Any]:  # noqa: ANN401 - whatever was read
    """Return a good answer of the agent; raises ValueError for what is none, and `RemoteRefused` for a refusal."""
    if not isinstance(said, dict) or not isinstance(said.get("ok"), bool):
        raise ValueError("this is no answer")  # noqa: TRY004 - of the agent, not of a caller
    if not said["ok"]:
        code, detail = str(said.get("code") or "agent-refused"), str(said.get("detail") or "no reason given")
        raise RemoteRefused(code, detail, status=422)
    return said


def site_client(agent: AgentSocket, *, kept: int = MAX_CONNECTIONS) -> httpx.AsyncClient:
    """Return an HTTP client for servers of the site: their TLS, with the node's certificate, is the agent's work.

    `kept` is how many connections stay open between requests.
    """
    return httpx.AsyncClient(
        transport=_Transport(agent, kept), timeout=PATIENCE, follow_redirects=False, trust_env=False
    )


class _Transport(httpx.AsyncHTTPTransport):
    """That of httpx through doors; a context that trusts nobody is what it would do TLS with."""

    def __init__(self, agent: AgentSocket, kept: int) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=kept,
            keepalive_expiry=60.0,
            network_backend=_Backend(agent),
        )


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, agent: AgentSocket) -> None:
        self._agent = agent

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 - so httpcore calls it
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        try:
            return _Stream(self._agent, *await self._agent.door(host, port))
        except (AgentSilent, RemoteRefused) as error:
            raise httpcore.ConnectError(f"{error.code}: {error.detail}") from error

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection through a door, whose handshake the agent has done."""

    def __init__(self, agent: AgentSocket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._agent = agent
        self._left = agent.left
        self._reader = reader
        self._writer = writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        try:
            async with asyncio.timeout(timeout):
                return await self._reader.read(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout("no answer in time") from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        try:
            async with asyncio.timeout(timeout):
                self._writer.write(buffer)
                await self._writer.drain()
        except TimeoutError as error:
            raise httpcore.WriteTimeout("not sent in time") from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        self._writer.close()

    async def start_tls(
        self,
        ssl_context: object,  # noqa: ARG002
        server_hostname: str | None = None,  # noqa: ARG002
        timeout: float | None = None,  # noqa: ARG002, ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        return self

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - of any type
        """Tell, of an idle connection, whether it is readable: whether there is anything but an end to come."""
        return (self._reader.at_eof() or self._left != self._agent.left) if info == "is_readable" else None
