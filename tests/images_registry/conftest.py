"""Fixtures: an authorization server's key, and applications served on a real socket by a thread."""

import asyncio
import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec

from umec_core.clock import system_clock
from umec_core.dpop import make_proof
from umec_core.jose import KeySet, sign_jwt, thumbprint
from umec_core.tokens import StaticKeys, TokenVerifier
from umec_images.gateway import ImagesService, ImagesSettings
from umec_images.oci.client import RegistryClient

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


class Holder:
    """Somebody with a key, who asks the registry with DPoP-bound tokens."""

    def __init__(self, issuer: Issuer, url: str, scope: str, **claims: Any) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.token = issuer.access(self.key, f"{url}/", scope, **claims)

    async def authorize(self, method: str, url: str) -> dict[str, str]:
        proof = make_proof(self.key, method, url, now=system_clock(), access_token=self.token)
        return {"Authorization": f"DPoP {self.token}", "DPoP": proof}


class Registry:
    """The images service with a real docker-registry behind it, as its clients see it."""

    def __init__(self, issuer: Issuer, url: str, state: Path) -> None:
        self.issuer, self.url, self.state = issuer, url, state

    def holder(self, scope: str = "images:push images:pull", **claims: Any) -> Holder:
        return Holder(self.issuer, self.url, scope, **({"tenant": "alpha"} | claims))

    def run(self, work: Callable[..., Awaitable[Any]], scope: str = "images:push images:pull", **claims: Any) -> Any:
        """Run `await work(client)` with a registry client of such a holder."""
        holder = self.holder(scope, **claims)

        async def with_client() -> Any:
            async with httpx.AsyncClient(timeout=30) as http:
                return await work(RegistryClient(self.url, http, holder.authorize))

        return asyncio.run(with_client())

    def send(self, holder: Holder, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send one request with the token of a holder."""
        url = f"{self.url}{path}"
        headers = asyncio.run(holder.authorize(method, url.partition("?")[0]))
        return httpx.request(method, url, headers={**headers, **arguments.pop("headers", {})}, **arguments)

    def stored(self, digest: str) -> Path:
        """Return the file in which the store keeps a blob."""
        name = digest.removeprefix("sha256:")
        return self.state / f"registry/docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data"


@pytest.fixture(scope="session")
def registry(served: type[Served], issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    state = tmp_path_factory.mktemp("images")

    async def make(url: str) -> tuple[Any, Callable[[], Awaitable[None]]]:
        verifier = TokenVerifier(
            issuer=issuer.url, audience=f"{url}/", keys=issuer.keys, standings=None, clock=system_clock
        )
        settings = ImagesSettings(state=state, url=url, issuer=issuer.url, max_blob=8 * 1024 * 1024)
        opened = await ImagesService.open(settings, verifier=verifier, identity_keys=issuer.keys, clock=system_clock)
        return opened.app, opened.close

    with served(make) as running:
        yield Registry(issuer, running.url, state)
