"""Fixtures: an authorization server's key, and applications served on a real socket by a thread."""

import asyncio
import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec

from umec_core.clock import system_clock
from umec_core.jose import KeySet, sign_jwt, thumbprint
from umec_core.tokens import StaticKeys

ISSUER = "https://mgmt.test:8443"


class Issuer:
    """Stands for the authorization server: real tokens under a key of its own."""

    def __init__(self) -> None:
        self.url = ISSUER
        self.key = ec.generate_private_key(ec.SECP256R1())

    @property
    def keys(self) -> StaticKeys:
        return StaticKeys(KeySet([self.key.public_key()]))

    def identity(self, **changes: Any) -> str:
        """Return an identity token for signing; `typ` and `key` may be changed like the claims."""
        now = int(system_clock().timestamp())
        typ, key = changes.pop("typ", "JWT"), changes.pop("key", self.key)
        claims = {
            "iss": self.url,
            "sub": f"{self.url}/identity/v1/clients/builder",
            "aud": "sigstore",
            "iat": now,
            "nbf": now,
            "exp": now + 300,
        }
        return sign_jwt({**claims, **changes}, key, typ=typ)

    def access(self, holder: ec.EllipticCurvePrivateKey, audience: str, scope: str, **changes: Any) -> str:
        """Return a DPoP-bound access token for the holder of a key."""
        now = system_clock()
        claims = {
            "iss": self.url,
            "sub": "client",
            "client_id": "client",
            "aud": audience,
            "iat": int(now.timestamp()),
            "exp": int((now + timedelta(seconds=300)).timestamp()),
            "jti": uuid.uuid4().hex,
            "scope": scope,
            "cnf": {"jkt": thumbprint(holder)},
        }
        merged = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return sign_jwt(merged, self.key, typ="at+jwt")


class Served:
    """An application on 127.0.0.1, made and served by an event loop in a thread of its own."""

    def __init__(self, make: Callable[[str], Awaitable[tuple[Any, Callable[[], Awaitable[None]]]]]) -> None:
        self._make = make
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server: uvicorn.Server | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> "Served":
        self._thread.start()
        while not (self._server is not None and self._server.started):
            if self._failure is not None:
                raise self._failure
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join(15)
        self._socket.close()

    async def _run(self) -> None:
        close = None
        try:
            app, close = await self._make(self.url)
            config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1, lifespan="off")
            self._server = uvicorn.Server(config)
            self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
            await self._server.serve(sockets=[self._socket])
        except BaseException as error:  # noqa: BLE001 - shown to the test that waits
            self._failure = error
        finally:
            if close is not None:
                await close()


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="session")
def served() -> type[Served]:
    return Served
