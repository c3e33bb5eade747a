"""A long answer as it comes: for what is written where it belongs and never held in memory.

It has a connection of its own, which shows the node's certificate and outlives its renewal: an image may need longer
than a certificate lives, and its token was judged when the answer began.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import httpcore

from umec_attest.agent.tls import NodeCredential, tls_context
from umec_attest.agent.transport import CONNECT_SECONDS, UNAVAILABLE
from umec_core.connections import Connections
from umec_core.remote import RemoteUnavailable, refusal

__all__ = ["download"]

STALL_SECONDS: Final = 60.0
"""Without a byte: who is slower than that is begun anew."""
MAX_REFUSAL: Final = 64 * 1024


@asynccontextmanager
async def download(
    url: str, *, ca: str, credential: NodeCredential, headers: Mapping[str, str]
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Give the content of an answer in pieces. Raises RemoteRefused, RemoteUnavailable, also in the middle of it."""
    given = [(name.encode(), value.encode()) for name, value in {**headers, "Accept-Encoding": "identity"}.items()]
    patience = {"connect": CONNECT_SECONDS, "read": STALL_SECONDS, "write": STALL_SECONDS, "pool": STALL_SECONDS}
    context = tls_context(ca, credential)
    try:
        async with (
            httpcore.AsyncConnectionPool(ssl_context=context, max_connections=1, network_backend=Connections()) as pool,
            pool.stream("GET", url, headers=given, extensions={"timeout": patience}) as response,
        ):
            if response.status != 200:
                said = b"".join([part async for part in _at_most(response.aiter_stream(), MAX_REFUSAL)])
                raise refusal(response.status, said)
            yield response.aiter_stream()
    except UNAVAILABLE as error:
        raise RemoteUnavailable(f"GET {url}: {str(error) or type(error).__name__}") from error


async def _at_most(parts: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    async for part in parts:
        yield part[:most]
        most -= len(part)
        if most <= 0:
            return
