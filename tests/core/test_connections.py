"""A connection ends with whoever opened it, at whatever moment that one gives up."""

import asyncio
import contextlib
import gc
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from umec_core.client import http_client


def certificate() -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server CA")])
    key, start = generate_private_key(SECP256R1()), datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + timedelta(days=365))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


def test_who_is_cancelled_in_a_handshake_leaves_no_connection() -> None:
    async def body() -> None:
        greeted, left = asyncio.Event(), asyncio.Event()

        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            greeted.set()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
            left.set()

        async with await asyncio.start_server(mute, "127.0.0.1", 0) as server, http_client(certificate()) as http:
            asked = asyncio.create_task(http.get(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
            await greeted.wait()
            gc.disable()  # it is not for the garbage collection to end it
            try:
                asked.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asked
                async with asyncio.timeout(20):
                    await left.wait()
            finally:
                gc.enable()

    asyncio.run(body())
