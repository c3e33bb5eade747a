"""A connection ends with whoever opened it, at whatever moment that one gives up."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

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


def test_who_is_cancelled_in_a_handshake_leaves_no_connection(cancelled_in_a_handshake: Any) -> None:
    async def body() -> None:
        async with http_client(certificate()) as http:
            await cancelled_in_a_handshake(http.get)

    asyncio.run(body())
