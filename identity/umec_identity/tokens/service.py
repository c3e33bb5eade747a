"""The token endpoint's decisions: authenticate, bind, decide, sign; write what was used and what was issued at once."""

from datetime import datetime, timedelta

from cryptography.x509 import load_der_x509_certificate

from umec_core.audit import AuditEntry, AuditLog
from umec_core.clock import Clock
from umec_core.dpop import ReplayCache, verify_proof
from umec_core.errors import UmecError
from umec_core.principal import Binding
from umec_core.standing import StandingView
from umec_core.store import Store
from umec_core.tokens import certificate_thumbprint
from umec_identity.authentication.service import Authenticated, Authentication
from umec_identity.certificates.service import Certificates
from umec_identity.errors import (
    BindingConflict,
    CertificateMissing,
    GrantMissing,
    GrantUnsupported,
    ProofMissing,
)
from umec_identity.forms import OAuthRequest
from umec_identity.grants.client_credentials import Grant, Wish, decide
from umec_identity.keys.ring import KeyRing
from umec_identity.ledger import Ledger
from umec_identity.refusals import Refusals
from umec_identity.settings import IdentitySettings, Resources
from umec_identity.tokens.issue import IssuedToken, issue
from umec_policies import PolicySet

__all__ = ["Tokens"]

Confirmation = dict[str, str]


class Tokens:
    """Issues tokens."""

    def __init__(
        self,
        settings: IdentitySettings,
        *,
        store: Store,
        audit: AuditLog,
        authentication: Authentication,
        refusals: Refusals,
        certificates: Certificates,
        ring: KeyRing,
        resources: Resources,
        standings: StandingView,
        policies: PolicySet,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._ledger = Ledger(store, audit)
        self._authentication = authentication
        self._refusals = refusals
        self._certificates = certificates
        self._ring = ring
        self._resources = resources
        self._standings = standings
        self._policies = policies
        self._clock = clock
        self._replay = ReplayCache()

    async def issue(self, request: OAuthRequest) -> IssuedToken:
        """Return a token; raises an error of `umec_identity.errors` or `umec_core`.

        1. The grant is client credentials. 2. Exactly one client authentication is good. 3. The token is bound as the
        client is registered, to a key or certificate that the client proves now. 4. Registration, standing and policies
        allow it. 5. What was used is used up, and the issuance is logged, in one transaction; only then it is answered.
        """
        grant_type = request.form.get("grant_type")
        if grant_type is None:  # 1
            raise GrantMissing("there is no grant_type")
        if grant_type != "client_credentials":
            raise GrantUnsupported("the only grant here is client_credentials")
        who = await self._authenticate(request)  # 2
        try:
            token, grant = await self._decide(who, request)
        except UmecError as error:
            subject = self._resources.api(request.form.get("resource", "")) or "unknown"
            await self._refusals.authenticated("token.issue", who, subject, error)
            raise
        await self._ledger.record(who.used, self._issued(who, grant, token))  # 5
        return token

    async def _authenticate(self, request: OAuthRequest) -> Authenticated:
        try:
            return await self._authentication.authenticate(request)
        except UmecError as error:
            await self._refusals.unauthenticated("token.issue", request.address, error)
            raise

    async def _decide(self, who: Authenticated, request: OAuthRequest) -> tuple[IssuedToken, Grant]:
        now = self._clock()
        binding, confirmation = await self._bind(who, request, now)  # 3
        grant = decide(  # 4
            who,
            Wish(request.form.get("resource"), request.form.get("scope")),
            binding=binding,
            resources=self._resources,
            standings=self._standings,
            policies=self._policies,
            issuer=self._settings.issuer,
            now=now,
        )
        life = timedelta(seconds=self._settings.token_seconds)
        key = self._ring.signing(now)
        token = issue(grant, key, issuer=self._settings.issuer, confirmation=confirmation, life=life, now=now)
        return token, grant

    async def _bind(
        self, who: Authenticated, request: OAuthRequest, now: datetime
    ) -> tuple[Binding, Confirmation | None]:
        """Return how the token is bound. A proof that was sent binds or is refused; it is never silently ignored."""
        wanted: Binding = "mtls" if who.client is None else who.client.binding
        if wanted == "mtls":
            if request.proof is not None:
                raise BindingConflict("this client's tokens are bound to its certificate, and it sends a DPoP proof")
            return "mtls", await self._bind_certificate(who, request, now)
        if request.proof is not None:
            url = f"{self._settings.issuer}/oauth2/token"
            proof = verify_proof(
                request.proof, method="POST", url=url, now=now, replay=self._replay, payer=who.client_id
            )
            return "dpop", {"jkt": proof.thumbprint}
        if wanted == "dpop":
            raise ProofMissing("this client's tokens are bound to a key: send a proof in a DPoP header")
        return "bearer", None

    async def _bind_certificate(self, who: Authenticated, request: OAuthRequest, now: datetime) -> Confirmation:
        if request.certificate is None:
            raise CertificateMissing("the client showed no certificate in the TLS handshake")
        if who.node is not None:
            certificate = load_der_x509_certificate(request.certificate)
            await self._certificates.check(certificate, who.node, now)
        return {"x5t#S256": certificate_thumbprint(request.certificate)}

    def _issued(self, who: Authenticated, grant: Grant, token: IssuedToken) -> AuditEntry:
        return AuditEntry(
            actor=who.client_id,
            action="token.issue",
            subject=grant.audience,
            outcome="done",
            facts={
                "jti": token.jti,
                "scopes": sorted(grant.scopes),
                "binding": grant.binding,
                "generation": grant.generation,
                "node": grant.node,
                "tenant": grant.tenant,
                "policies": list(grant.policies),
                "policy_sha256": grant.policy_digest,
            },
            now=self._clock(),
        )
