"""For all tests: on a slow machine an example takes longer, and is no worse. And servers of more than one area."""

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture
def cancelled_in_a_handshake() -> Callable[[Callable[[str], Awaitable[object]]], Awaitable[None]]:
    """Cancel who asks a server that never speaks TLS; returns once that server saw the connection end.

    The garbage collection is off until then: it is not for it to end a connection.
    """

    async def cancelling(ask: Callable[[str], Awaitable[object]]) -> None:
        greeted, left = asyncio.Event(), asyncio.Event()

        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            greeted.set()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
            left.set()

        async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
            asked = asyncio.ensure_future(ask(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
            await greeted.wait()
            gc.disable()
            try:
                asked.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asked
                async with asyncio.timeout(20):
                    await left.wait()
            finally:
                gc.enable()

    return cancelling
