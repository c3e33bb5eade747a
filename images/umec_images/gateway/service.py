"""The images service put together: store, gateway, signing authority, and whatever else is served at the registry."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import httpx
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from umec_core.clock import Clock
from umec_core.edge import Edge
from umec_core.http import create_app
from umec_core.tokens import KeySource, TokenVerifier
from umec_images.authority import SigningAuthority
from umec_images.gateway.access import Gatekeeper
from umec_images.gateway.backend import Backend
from umec_images.gateway.content import Contents
from umec_images.gateway.endpoints import gateway_app
from umec_images.gateway.process import RegistryProcess

__all__ = ["ImagesService", "ImagesSettings"]

MAX_BLOB: Final = 4 * 1024**3
"""Bytes. The largest layers of accelerator images that anybody ships to the edge have about three gigabytes."""
UPLOAD_SLACK: Final = 1024 * 1024

_Url = Annotated[str, Field(pattern=r"^https?://[^/?#]+$")]


class ImagesSettings(BaseModel):
    """What the images service needs to know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: Path
    """Its directory (0700): keys, log, and the registry's files."""
    url: _Url
    """Its public address, no trailing slash; also the audience of tokens (with one)."""
    issuer: _Url
    """The authorization server whose tokens and identities it believes."""
    database: str | None = None
    """SQLAlchemy URL of the log's database; a file in `state` by default."""
    registry_program: Path = Path("/usr/bin/docker-registry")
    max_blob: int = Field(default=MAX_BLOB, gt=0)


@dataclass(frozen=True, slots=True)
class ImagesService:
    """A running images service; `app` serves everything at the registry's address."""

    app: ASGIApp
    routers: Sequence[APIRouter]
    authority: SigningAuthority
    process: RegistryProcess
    backend: Backend
    contents: Contents

    @classmethod
    async def open(
        cls,
        settings: ImagesSettings,
        *,
        verifier: TokenVerifier,
        identity_keys: KeySource,
        clock: Clock,
        routers: Sequence[APIRouter] | Callable[["Backend", SigningAuthority], Sequence[APIRouter]] = (),
    ) -> "ImagesService":
        """Start the store and open everything in front of it.

        `verifier` makes principals of access tokens for `{url}/`; `identity_keys` are the issuer's keys, for signing
        identities; `routers` are served beside (promotions), or made from the store and the authority.
        """
        state = settings.state / "authority"
        authority = await SigningAuthority.open(
            state,
            url=settings.url,
            issuer=settings.issuer,
            keys=identity_keys,
            clock=clock,
            database=settings.database,
        )
        try:
            process = await RegistryProcess.start(settings.registry_program, settings.state / "registry")
        except BaseException:
            await authority.close()
            raise
        backend = Backend(httpx.AsyncHTTPTransport(uds=str(process.socket)))
        contents = Contents(backend)
        more = routers(backend, authority) if callable(routers) else routers
        served = [authority.router, *more]
        gatekeeper = Gatekeeper(verifier, url=settings.url)
        registry = gateway_app(backend, contents, gatekeeper, max_blob=settings.max_blob)
        app = _Split(
            registry=Edge(registry, name="registry", max_body=settings.max_blob + UPLOAD_SLACK),
            other=create_app("images", served, ready=backend.ping),
        )
        return cls(app, served, authority, process, backend, contents)

    async def run(self) -> None:
        """Keep the store running; ends when it is cancelled."""
        await self.process.supervise()

    async def close(self) -> None:
        """Stop the store and close what is open."""
        await asyncio.gather(self.backend.close(), self.authority.close(), self.process.stop())


@dataclass(frozen=True, slots=True)
class _Split:
    """Sends `/v2/…` to the registry, which streams and has its own errors, and the rest to the other application."""

    registry: ASGIApp
    other: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        is_registry = scope["type"] == "http" and (path == "/v2" or path.startswith("/v2/"))
        await (self.registry if is_registry else self.other)(scope, receive, send)
