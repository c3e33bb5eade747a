"""The images service put together: store, gateway, signing authority, and whatever else is served at the registry."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from umec_core.clock import Clock
from umec_core.edge import Edge
from umec_core.http import create_app, require
from umec_core.jose import public_jwk
from umec_core.keys import load_or_create_key
from umec_core.principal import Principal
from umec_core.tokens import KeySource, TokenVerifier
from umec_images.admission import Terms
from umec_images.authority import SigningAuthority
from umec_images.authority.journal import Journal
from umec_images.authority.trust import trusted_root
from umec_images.denials import Denials, denials_router
from umec_images.gateway.access import Gatekeeper, Insider
from umec_images.gateway.backend import Backend
from umec_images.gateway.content import Contents
from umec_images.gateway.endpoints import gateway_app
from umec_images.gateway.explanations import explanation_router
from umec_images.gateway.process import RegistryProcess
from umec_images.oci.client import RegistryClient
from umec_images.oci.manifest import encode
from umec_images.promotion import (
    Builders,
    Promoted,
    Promoter,
    StoredHistory,
    Wish,
    promotion_router,
    trusted_builders,
)
from umec_images.verify import BundleVerifier
from umec_images.verify.identity import Expected
from umec_policies import PolicySet, load_default

__all__ = ["ImagesService", "ImagesSettings", "site_builders"]

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
    builders: dict[str, list[str]] = {}
    """Tenant -> clients whose signatures count for its images; `TENANT-builder` for a tenant that is not listed."""
    registry_program: Path = Path("/usr/bin/docker-registry")
    max_blob: int = Field(default=MAX_BLOB, gt=0)


@dataclass(frozen=True, slots=True)
class ImagesService:
    """A running images service; `app` serves everything at the registry's address."""

    settings: ImagesSettings
    app: ASGIApp
    authority: SigningAuthority
    process: RegistryProcess
    backend: Backend
    promoter: Promoter
    denials: Denials

    @classmethod
    async def open(
        cls,
        settings: ImagesSettings,
        *,
        verifier: TokenVerifier,
        identity_keys: KeySource,
        clock: Clock,
        promotion_policies: PolicySet | None = None,
        admission_policies: Callable[[], PolicySet] | None = None,
    ) -> "ImagesService":
        """Start the store and open everything in front of it.

        `verifier` makes principals of access tokens for `{url}/`; `identity_keys` are the issuer's keys, for signing
        identities; `promotion_policies` decide instead of the default set, and `admission_policies` are asked what a
        platform would say, as they are at that moment.
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
            denials = await Denials.open(authority.store, authority.journal, clock)
            process = await RegistryProcess.start(settings.registry_program, settings.state / "registry")
        except BaseException:
            await authority.close()
            raise
        backend = Backend(httpx.AsyncHTTPTransport(uds=str(process.socket)), room=2 * settings.max_blob)
        contents = Contents(backend)
        door = Gatekeeper(verifier, url=settings.url)
        registry = gateway_app(backend, contents, door, journal=authority.journal, max_blob=settings.max_blob)
        inside = gateway_app(
            backend, contents, Insider(clock), journal=authority.journal, max_blob=settings.max_blob, own=True
        )
        policies = load_default("promotion") if promotion_policies is None else promotion_policies
        client = _client(inside)
        promoter = _promoter(settings, authority, client, clock, policies, denials)
        terms = _terms(promoter, denials, admission_policies or partial(load_default, "admission"))
        recorder = _recorder(authority.journal, denials)
        promotions = promotion_router(promoter, verifier, issuer=settings.issuer, promoted=recorder)
        explanations = explanation_router(client, verifier, terms=terms, clock=clock)
        denied, audit = denials_router(denials, verifier), _audit_router(authority, verifier)
        routers = [authority.router, promotions, explanations, denied, audit]
        app = _Split(
            registry=Edge(registry, name="registry", max_body=settings.max_blob + UPLOAD_SLACK),
            other=create_app("images", routers, ready=backend.ping),
        )
        return cls(settings, app, authority, process, backend, promoter, denials)

    @property
    def trusted_root(self) -> bytes:
        """The trusted root of the signing authority here: trusted_root.json."""
        return encode(trusted_root(self.authority.material, url=self.settings.url))

    @property
    def audit_key(self) -> EllipticCurvePublicKey:
        """Verifies the checkpoints of this service's audit log."""
        return self.authority.audit_key

    async def ready(self) -> None:
        """Raise BackendUnavailable unless the store answers."""
        await self.backend.ping()

    async def run(self) -> None:
        """Keep the store running; ends when it is cancelled."""
        await self.process.supervise()

    async def close(self) -> None:
        """Stop the store and close what is open."""
        await self.denials.close()
        await asyncio.gather(self.backend.close(), self.authority.close(), self.process.stop())


def site_builders(issuer: str, listed: Mapping[str, Sequence[str]]) -> Builders:
    """Return whose signatures count: the listed clients of a tenant, else its client `TENANT-builder`.

    Only clients of the kind builder get signing identities, and only operators register clients.
    """

    def builders(tenant: str) -> Expected:
        clients = listed.get(tenant, [f"{tenant}-builder"])
        return trusted_builders(issuer, {tenant: clients})(tenant)

    return builders


def _promoter(
    settings: ImagesSettings,
    authority: SigningAuthority,
    registry: RegistryClient,
    clock: Clock,
    policies: PolicySet,
    denials: Denials,
) -> Promoter:
    root = encode(trusted_root(authority.material, url=settings.url))
    return Promoter(
        name=settings.url,
        registry=registry,
        verifier=BundleVerifier(root),
        builders=site_builders(settings.issuer, settings.builders),
        key=load_or_create_key(settings.state / "promotion.key"),
        policies=policies,
        history=StoredHistory(authority.store, authority.journal, clock),
        clock=clock,
        deny_list=denials.current,
    )


def _terms(promoter: Promoter, denials: Denials, policies: Callable[[], PolicySet]) -> Callable[[], Terms]:
    """Return what admission of this site judges by, as the platform has it."""
    return lambda: Terms(promoter.verifier, promoter.builders, (promoter.public_key,), policies(), denials.current())


def _recorder(journal: Journal, denials: Denials) -> Callable[[Principal, Wish, Promoted], Awaitable[None]]:
    async def promoted(principal: Principal, wish: Wish, made: Promoted) -> None:
        summary = made.summary
        facts: dict[str, Any] = {"stage": summary.stage, "summary": made.vsa_digest, "builder": summary.builder}
        if made.version is not None:
            facts["version"] = made.version.text
        if made.rolled_back:
            facts["rollback"] = wish.rollback
        subject = f"{summary.repository}@{summary.digest}"
        if not made.before:
            await journal.done(principal.client_id, "image-promoted", subject, facts)
        if wish.minimum:
            reason = f"raised with the promotion to {summary.stage}"
            await denials.set_minimum(principal.client_id, summary.repository, made.version, reason)

    return promoted


def _audit_router(authority: SigningAuthority, verifier: TokenVerifier) -> APIRouter:
    router = APIRouter(prefix="/images/v1")

    @router.get("/audit", dependencies=[Depends(require(verifier, "images:admin"))])
    async def audit(after: Annotated[int, Query(ge=0, lt=2**53)] = 0) -> dict[str, Any]:
        return await authority.journal.export(after=after)

    @router.get("/audit-key")
    async def audit_key() -> dict[str, str]:
        return public_jwk(authority.audit_key)

    return router


def _client(app: ASGIApp) -> RegistryClient:
    """Return a client of the gateway in this process: what it reads and attaches goes through the same checks."""
    transport = httpx.ASGITransport(app=app)
    return RegistryClient("http://registry", httpx.AsyncClient(transport=transport))


@dataclass(frozen=True, slots=True)
class _Split:
    """Sends `/v2/…` to the registry, which streams and has its own errors, and the rest to the other application."""

    registry: ASGIApp
    other: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        is_registry = scope["type"] == "http" and (path == "/v2" or path.startswith("/v2/"))
        await (self.registry if is_registry else self.other)(scope, receive, send)
