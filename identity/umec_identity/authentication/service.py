"""Who asks at an /oauth2 endpoint: exactly one client authentication, verified.

form client_assertion (private_key_jwt)                         applications, services, builders, operators
headers OAuth-Client-Attestation and OAuth-Client-Attestation-PoP    nodes
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from umec_core.clock import Clock
from umec_core.jose import JwtInvalid, KeySource, peek_kid
from umec_core.standing import StandingView
from umec_identity.authentication.assertion import ASSERTION_TYPE, peek_assertion, verify_assertion
from umec_identity.authentication.attestation import AttestedNode, check_standing, verify_ear, verify_possession
from umec_identity.authentication.challenge import Challenges
from umec_identity.clients.service import Client, Clients
from umec_identity.errors import (
    AttestationInvalid,
    AuthenticationDouble,
    AuthenticationMissing,
    AuthenticationUnsupported,
    ClientInvalid,
)
from umec_identity.forms import OAuthRequest
from umec_identity.limits import Buckets
from umec_identity.rows import Used
from umec_identity.settings import IdentitySettings

__all__ = ["Authenticated", "Authentication", "method_of"]

METHODS: Final = ("attestation", "assertion")

PATIENCE: Final = 2.0
"""Seconds in which a statement about the generation of a fresh attestation result has to arrive."""


@dataclass(frozen=True, slots=True)
class Authenticated:
    """A client that proved itself: a registered `client`, or an attested `node`; `used` is used up by the request."""

    client: Client | None
    node: AttestedNode | None
    used: tuple[Used, ...]

    @property
    def client_id(self) -> str:
        """The identifier of the client; a node's is its own."""
        if self.node is not None:
            return self.node.node
        assert self.client is not None  # noqa: S101 - one of the two is there: `Authentication` makes it so
        return self.client.client_id


def method_of(request: OAuthRequest) -> str:
    """Return which client authentication a request carries; raises if it is none, several or one that we do not offer.

    A TLS certificate alone authenticates nobody here: it binds what is issued.
    """
    found = [
        name
        for name, given in {
            "attestation": request.attestation is not None or request.possession is not None,
            "assertion": bool({"client_assertion", "client_assertion_type"} & request.form.keys()),
            "authorization": request.authorization is not None,
            "secret": "client_secret" in request.form,
        }.items()
        if given
    ]
    if not found:
        raise AuthenticationMissing("the request carries no client authentication")
    if len(found) > 1:
        raise AuthenticationDouble(f"the request carries several client authentications: {', '.join(found)}")
    if found[0] not in METHODS:
        raise AuthenticationUnsupported(
            "clients authenticate by private_key_jwt, nodes by attestation", advice="register a public key"
        )
    return found[0]


class Authentication:
    """Verifies the client authentication of requests."""

    def __init__(
        self,
        settings: IdentitySettings,
        *,
        clients: Clients,
        verifier_keys: KeySource,
        standings: StandingView,
        challenges: Challenges,
        clock: Clock,
    ) -> None:
        self._issuer = settings.issuer
        self._verifier = settings.verifier_issuer
        self._clients = clients
        self._verifier_keys = verifier_keys
        self._standings = standings
        self._challenges = challenges
        self._clock = clock
        self._buckets = Buckets(settings.requests_per_second_client, what="client", clock=clock)

    async def authenticate(self, request: OAuthRequest, *, csr_sha256: str | None = None) -> Authenticated:
        """Return who asks; raises an error of `umec_identity.errors`.

        What is `used` counts as used only once the caller has written it (`umec_identity.rows.consume`).
        """
        if method_of(request) == "attestation":
            return await self._by_attestation(request, self._clock(), csr_sha256)
        return await self._by_assertion(request, self._clock())

    async def _by_assertion(self, request: OAuthRequest, now: datetime) -> Authenticated:
        text = request.form.get("client_assertion")
        if text is None or request.form.get("client_assertion_type") != ASSERTION_TYPE:
            raise AuthenticationUnsupported(f"client_assertion_type is not {ASSERTION_TYPE}, or there is no assertion")
        peeked = peek_assertion(text, issuer=self._issuer, now=now)
        if request.form.get("client_id", peeked.client_id) != peeked.client_id:
            raise ClientInvalid
        self._buckets.take(f"{request.address} {peeked.client_id}")  # so that strangers cannot use up its bucket
        assertion = await verify_assertion(peeked, self._clients)
        return Authenticated(client=assertion.client, node=None, used=(assertion.used,))

    async def _by_attestation(self, request: OAuthRequest, now: datetime, csr_sha256: str | None) -> Authenticated:
        if request.attestation is None or request.possession is None:
            raise AttestationInvalid("an attestation result and a proof of possession come together")
        try:
            keys = await self._verifier_keys.keys(peek_kid(request.attestation))
        except JwtInvalid as error:
            raise AttestationInvalid(f"the attestation result is not valid: {error.detail}") from error
        ear = verify_ear(request.attestation, keys, verifier=self._verifier, audience=self._issuer, now=now)
        await self._standings.reach(ear.node, ear.generation, within=PATIENCE)
        node = check_standing(ear, self._standings, self._clock())
        if request.form.get("client_id", node.node) != node.node:
            raise AttestationInvalid("client_id is not the node of the attestation result")
        self._buckets.take(node.node)
        possession = verify_possession(
            request.possession,
            node,
            audience=self._issuer,
            challenges=self._challenges,
            now=now,
            csr_sha256=csr_sha256,
        )
        return Authenticated(client=None, node=node, used=possession.used)
