"""The authorization server as one object: what `umec up` and `umec serve identity` compose.

service = await IdentityService.open(settings, verifier_keys=…, standings=view, seeds=[…])
app = create_app("identity", service.routers)
await asyncio.gather(serve(…), service.run())
await service.close()
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from fastapi import APIRouter, Depends, Query
from sqlalchemy import select

from umec_core.audit import AuditLog
from umec_core.clock import Clock, system_clock
from umec_core.http import require
from umec_core.jose import KeySet, KeySource, public_jwk
from umec_core.keys import load_or_create_key
from umec_core.principal import Principal
from umec_core.standing import StandingView
from umec_core.store import Store
from umec_core.tokens import TokenVerifier
from umec_identity.authentication.challenge import Challenges
from umec_identity.authentication.service import Authentication
from umec_identity.certificates.authority import CertificateAuthority
from umec_identity.certificates.endpoints import router as certificates_router
from umec_identity.certificates.service import Certificates
from umec_identity.clients.endpoints import router as clients_router
from umec_identity.clients.rows import ClientRow
from umec_identity.clients.schemas import ClientIn
from umec_identity.clients.service import Clients
from umec_identity.keys.endpoints import router as keys_router
from umec_identity.keys.ring import KeyRing
from umec_identity.limits import Buckets
from umec_identity.metadata.endpoints import router as metadata_router
from umec_identity.refusals import Refusals
from umec_identity.revocation.endpoints import router as revocation_router
from umec_identity.revocation.judge import TokenJudge
from umec_identity.revocation.service import Revocation
from umec_identity.rows import AuditRow, forget_used
from umec_identity.settings import SCOPES, IdentitySettings, Resources
from umec_identity.tokens.endpoints import router as tokens_router
from umec_identity.tokens.service import Tokens
from umec_policies import PolicySet, load_default

__all__ = ["MIGRATIONS", "IdentityService", "operator_seed", "service_seed"]

MIGRATIONS: Final = Path(__file__).parent / "migrations"

TENDED_EVERY: Final = 30.0
"""Seconds between two looks at what is over: used identifiers, certificates, denials, keys."""

SERVICE_SCOPES: Final[dict[str, frozenset[str]]] = {
    "umec-platform": frozenset({"attest:read", "standings:read", "identity:instances", "images:pull"}),
    "umec-images": frozenset({"attest:read", "standings:read", "images:pull", "images:push"}),
    "umec-identity": frozenset({"standings:read"}),
    "umec-attest": frozenset({"standings:read"}),
}
"""What each service of ours may do at the others."""

_log = structlog.get_logger(__name__)


def service_seed(client_id: str, key: EllipticCurvePublicKey) -> ClientIn:
    """Return the client of one of our services; KeyError for an unknown one."""
    scopes = sorted(SERVICE_SCOPES[client_id])
    return ClientIn(client_id=client_id, kind="service", jwks={"keys": [public_jwk(key)]}, scopes=scopes)


def operator_seed(key: EllipticCurvePublicKey, *, client_id: str = "operator") -> ClientIn:
    """Return the operator's client: every scope but those that say that the caller is an application."""
    scopes = sorted(frozenset().union(*(scopes for api, scopes in SCOPES.items() if api != "mp1")))
    return ClientIn(client_id=client_id, kind="operator", jwks={"keys": [public_jwk(key)]}, scopes=scopes)


class IdentityService:
    """The running authorization server. `open` makes it; the attributes are what others in this process may use."""

    def __init__(
        self,
        settings: IdentitySettings,
        *,
        store: Store,
        ring: KeyRing,
        authority: CertificateAuthority,
        verifier_keys: KeySource,
        standings: StandingView,
        policies: PolicySet,
        clock: Clock,
    ) -> None:
        self.settings: Final = settings
        self.ring: Final = ring
        """The token keys; also the `KeySource` of every API in this process."""
        self.authority: Final = authority
        self.resources: Final = Resources(settings)
        self._store = store
        self._clock = clock
        audit_key = load_or_create_key(settings.state / "audit.key")
        self.audit_key: Final = audit_key.public_key()
        self.audit: Final = AuditLog(AuditRow, audit_key, f"{settings.issuer}/identity/v1/audit")
        self.revocation: Final = Revocation(store, clock=clock)
        self.clients: Final = Clients(
            store, audit=self.audit, revocation=self.revocation, resources=self.resources, clock=clock
        )
        self.verifier: Final = self._token_verifier(standings)
        self._refusals = Refusals(store, audit=self.audit, clock=clock)
        self.routers: Final = self._compose(verifier_keys, standings, policies)

    @classmethod
    async def open(
        cls,
        settings: IdentitySettings,
        *,
        verifier_keys: KeySource,
        standings: StandingView,
        seeds: Sequence[ClientIn] = (),
        policies: PolicySet | None = None,
        clock: Clock = system_clock,
    ) -> "IdentityService":
        """Open keys, CA and database (made where there are none), register the seeds, and return the service.

        `verifier_keys` are those of the attestation verifier, `standings` the view that its statements keep fresh.
        """
        now = clock()
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = await Store.open(settings.database_url, migrations=MIGRATIONS)
        try:
            service = cls(
                settings,
                store=store,
                ring=KeyRing.open(settings.state / "token-keys", now),
                authority=CertificateAuthority.open(settings.state, now),
                verifier_keys=verifier_keys,
                standings=standings,
                policies=policies if policies is not None else load_default("tokens"),
                clock=clock,
            )
            await service.clients.seed(seeds)
            await service.tend()
        except BaseException:
            await store.close()
            raise
        return service

    @property
    def ca_path(self) -> Path:
        """PEM file of the platform CA, for the `client_ca` of a listener."""
        return self.settings.state / "platform-ca.pem"

    @property
    def jwks(self) -> KeySet:
        """The keys that are published now."""
        return self.ring.published()

    async def run(self) -> None:
        """Tend to what is over until cancelled."""
        while True:
            await asyncio.sleep(TENDED_EVERY)
            try:
                await self.tend()
            except Exception:  # noqa: BLE001 - a database that is away for a while must not end the upkeep
                _log.exception("upkeep failed")

    async def tend(self) -> None:
        """Forget what is over, and rotate the token key when its time has come."""
        now = self._clock()
        await self._store.write(lambda session: forget_used(session, now))
        await self.revocation.refresh()
        await self._certificates.forget(now)
        await self._refusals.summarise(now)
        self.ring.tend(now, life=timedelta(days=self.settings.token_key_days))

    async def ready(self) -> None:
        """Return if the database answers; raises otherwise."""
        async with self._store.read() as session:
            await session.execute(select(ClientRow.client_id).limit(1))

    async def export_audit(self, *, after: int = 0) -> Mapping[str, Any]:
        """Return the audit log behind its first `after` entries, with a signed checkpoint."""
        async with self._store.read() as session:
            return await self.audit.export(session, after=after)

    async def close(self) -> None:
        """Tell what was refused and not written until now, and close the database."""
        try:
            await self._refusals.summarise(self._clock(), early=True)
        finally:
            await self._store.close()

    def _token_verifier(self, standings: StandingView) -> TokenVerifier:
        resource = self.resources.by_api["identity"]
        issuer = self.settings.issuer
        return TokenVerifier(
            issuer=issuer,
            audience=resource,
            keys=self.ring,
            standings=standings,
            clock=self._clock,
            denied=self.revocation.denied,
            resource_metadata=f"{issuer}/.well-known/oauth-protected-resource/identity/v1",
        )

    def _compose(self, verifier_keys: KeySource, standings: StandingView, policies: PolicySet) -> Sequence[APIRouter]:
        settings, clock, store, audit = self.settings, self._clock, self._store, self.audit
        addresses = Buckets(settings.requests_per_second_address, what="address", clock=clock)
        challenges = Challenges.under(load_or_create_key(settings.state / "challenge.key"))
        refusals = self._refusals
        self._certificates = Certificates(self.authority, store=store, audit=audit, clock=clock)
        authentication = Authentication(
            settings,
            clients=self.clients,
            verifier_keys=verifier_keys,
            standings=standings,
            challenges=challenges,
            clock=clock,
        )
        tokens = Tokens(
            settings,
            store=store,
            audit=audit,
            authentication=authentication,
            refusals=refusals,
            certificates=self._certificates,
            ring=self.ring,
            resources=self.resources,
            standings=standings,
            policies=policies,
            clock=clock,
        )
        judge = TokenJudge(
            issuer=settings.issuer,
            store=store,
            audit=audit,
            authentication=authentication,
            refusals=refusals,
            revocation=self.revocation,
            ring=self.ring,
            standings=standings,
            clock=clock,
        )
        return (
            tokens_router(tokens, challenges, addresses=addresses, clock=clock),  # first: it is asked most
            metadata_router(settings.issuer, self.resources),
            keys_router(self.ring),
            revocation_router(judge, addresses=addresses),
            certificates_router(
                self._certificates,
                self.authority,
                authentication=authentication,
                refusals=refusals,
                addresses=addresses,
            ),
            clients_router(self.clients, self.verifier, mp1=self.resources.by_api["mp1"]),
            self._audit_router(),
        )

    def _audit_router(self) -> APIRouter:
        api = APIRouter(prefix="/identity/v1")
        may = require(self.verifier, "identity:clients")

        @api.get("/audit")
        async def export(
            _caller: Annotated[Principal, Depends(may)], after: Annotated[int, Query(ge=0, lt=2**53)] = 0
        ) -> Mapping[str, Any]:
            return await self.export_audit(after=after)

        @api.get("/audit-key")
        async def key() -> dict[str, str]:
            return public_jwk(self.audit_key)

        return api
