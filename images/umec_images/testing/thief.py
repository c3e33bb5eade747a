"""Somebody with a copy of a signing authority's keys, who signs in any builder's name."""

import asyncio
import contextlib
import json
import shutil
import socket
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self

import httpx
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI

from umec_core.clock import system_clock
from umec_core.jose import KeySet, sign_jwt
from umec_core.tokens import StaticKeys
from umec_images.authority import SigningAuthority
from umec_images.authority.material import load_or_create
from umec_images.authority.rotation import rotate
from umec_images.build.signing import provenance, sign_statement

__all__ = ["Thief", "retired_authority"]

START_SECONDS: Final = 20.0
TOKEN_LIFE: Final = timedelta(minutes=5)


def retired_authority(state: Path, stolen: Path, *, url: str) -> None:
    """Give an authority that did not start yet a past: keys that were copied to `stolen`, and retired since."""
    load_or_create(state, now=system_clock() - timedelta(days=400))
    shutil.copytree(state, stolen)
    rotate(state, url=url, now=system_clock() - timedelta(days=30))


class Thief:
    """Runs an authority from stolen keys while its context is open; `issuer` is whose word it pretends to have."""

    def __init__(self, stolen: Path, *, issuer: str) -> None:
        self._stolen = stolen
        self._issuer = issuer
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server: uvicorn.Server | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while self._server is None or not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise RuntimeError("the stolen authority did not start")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(START_SECONDS)
        self._socket.close()

    def sign(self, repository: str, digest: str, subject: str, *, clock: str | None = None, ca: str = "") -> bytes:
        """Return a bundle: provenance about a digest, as the builder `subject`.

        The time stamp is by the stolen key, or by the authority at `clock` (its URL; `ca` is the PEM of its server).
        """
        now = system_clock()
        claims: dict[str, Any] = {"iss": self._issuer, "sub": subject, "aud": "sigstore"}
        claims |= {"iat": int(now.timestamp()), "exp": int((now + TOKEN_LIFE).timestamp())}
        config = httpx.get(f"{self._url}/sigstore/client_trust_config.json", trust_env=False).json()
        if clock is not None:
            config["signingConfig"]["tsaUrls"][0]["url"] = clock
        statement = provenance(repository=repository, digest=digest, builder=subject, report=None, now=now)
        token = sign_jwt(claims, self._key, typ="JWT")
        return sign_statement(statement, trust_config=json.dumps(config), identity_token=token, ca=ca)

    async def _run(self) -> None:
        keys = StaticKeys(KeySet([self._key.public_key()]))
        authority = await SigningAuthority.open(
            self._stolen, url=self._url, issuer=self._issuer, keys=keys, clock=system_clock
        )
        try:
            app = FastAPI()
            app.include_router(authority.router)
            server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
            server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]  # not in the main thread
            self._server = server
            await server.serve(sockets=[self._socket])
        finally:
            await authority.close()
