"""Connections of our clients, which end with whoever opened them: httpcore forgets one that is cancelled in its TLS.

httpcore 1.0 closes a connection when its handshake fails, but not when the task that waits for it is cancelled, as any
deadline of ours does. A peer that never answers would hold a socket of a node until the garbage is collected.
"""

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

__all__ = ["Connections"]


class Connections(httpcore.AnyIOBackend):
    """Opens connections for a pool of httpcore (`network_backend`)."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - so httpcore calls it
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Return a connection to an address; raises `httpcore.ConnectError` or `ConnectTimeout`."""
        return _Plain(await super().connect_tcp(host, port, timeout, local_address, socket_options))


class _Plain(httpcore.AsyncNetworkStream):
    """A connection before its handshake."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - so httpcore calls it
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except asyncio.CancelledError:
            await self.aclose()
            raise

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - of any type
        return self._stream.get_extra_info(info)
