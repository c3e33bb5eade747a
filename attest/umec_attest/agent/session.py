"""What a node may do between two rounds: its certificate, and the tokens that are bound to it.

1. The authorization server gives a challenge.
2. The TLS key signs a certificate request, the node key signs the request's hash and the challenge.
3. With the attestation result and that proof, the authorization server issues a certificate.
4. Over a connection with that certificate, it issues tokens that only such a connection can use (RFC 8705).
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509

from umec_attest.agent.platform_client import PlatformClient
from umec_attest.agent.proof import POP_TYPE, SignDigest, pop_claims, signed_jwt
from umec_attest.agent.tls import NodeCredential, make_request, new_key, request_pem
from umec_attest.agent.transport import Answer
from umec_core.clock import Clock
from umec_core.jose import peek_claims

__all__ = ["AttestationResult", "Session", "default_resource", "open_session"]

EARLY: Final = timedelta(seconds=60)
"""A token is renewed this long before it ends: two rounds fit in, so one failure does no harm."""
RETIRE_SECONDS: Final = 2.0
"""How long a session that was replaced waits for calls under way: a round must not wait for a slow peer."""
MANAGEMENT_APIS: Final = ("attest", "identity", "platform")
PLATFORM_APIS: Final = ("app_pkgm", "app_lcm", "granting")


@dataclass(frozen=True, slots=True)
class AttestationResult:
    """The verifier's word for the node (EAR), which is its client attestation."""

    text: str = field(repr=False)
    generation: int
    expires: datetime

    @classmethod
    def of(cls, text: str, *, generation: int, clock: Clock) -> "AttestationResult":
        """Read the end of its life; the rest is for those whom it is shown to. Raises JwtInvalid."""
        expires = peek_claims(text).get("exp")
        now = clock()
        life = float(expires) - now.timestamp() if isinstance(expires, int | float) else 0.0
        return cls(text, generation, now + timedelta(seconds=life))


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    expires: datetime


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True)
class Session:
    """A certificate, the connection that shows it, the tokens that are bound to it."""

    node: str
    url: str
    credential: NodeCredential
    platform: PlatformClient
    clock: Clock
    sign: SignDigest
    result: AttestationResult
    _tokens: dict[tuple[str, str], _Token] = field(default_factory=dict)
    _users: int = 0
    _unused: asyncio.Event = field(default_factory=_set_event)

    async def token(self, resource: str, scope: str) -> tuple[str, datetime]:
        """Return an access token for one API and when it ends."""
        known = self._tokens.get((resource, scope))
        if known is None or known.expires - EARLY <= self.clock():
            known = await self._ask(resource, scope)
            self._tokens[resource, scope] = known
        return known.text, known.expires

    async def call(
        self, method: str, url: str, *, resource: str, scope: str, content: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        """Send one request with a certificate-bound token over the connection that shows the certificate."""
        text, _ = await self.token(resource, scope)
        given = {**headers, "Authorization": f"Bearer {text}"}
        return await self.platform.send(method, url, content=content, headers=given, check=False)

    @contextlib.contextmanager
    def lent(self) -> Iterator["Session"]:
        """Keep the connection open for one call, though the session may be retired meanwhile."""
        self._users += 1
        self._unused.clear()
        try:
            yield self
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def retire(self) -> None:
        """Close the session when the last call that is under way has ended, or does not end in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETIRE_SECONDS):
                await self._unused.wait()
        await self.close()

    async def close(self) -> None:
        """Let go of the connection; the key is forgotten with it."""
        self._tokens.clear()
        await self.platform.close()

    async def _ask(self, resource: str, scope: str) -> _Token:
        now = self.clock()
        proof = await _proof(self.platform, self.node, self.url, self.result, self.sign, now)
        form = {"grant_type": "client_credentials", "client_id": self.node, "resource": resource, "scope": scope}
        answer = await self.platform.token(form, proof)
        return _Token(answer.access_token, now + timedelta(seconds=answer.expires_in))


async def open_session(
    *, node: str, url: str, ca: str, result: AttestationResult, sign: SignDigest, clock: Clock
) -> Session:
    """Get a certificate for a new TLS key. Raises RemoteRefused, RemoteUnavailable, AnswerInvalid, TpmUnavailable."""
    key = new_key()
    request = make_request(key, node)  # 2
    async with PlatformClient(url, ca) as platform:
        now = clock()
        proof = await _proof(platform, node, url, result, sign, now, request)  # 1, 2
        answer = await platform.certificate(request_pem(request), proof)  # 3
    credential = NodeCredential(key, answer.certificate, answer.chain, now, answer.expires_at, result.generation)
    return Session(node, url, credential, PlatformClient(url, ca, credential), clock, sign, result)


def default_resource(url: str, management: str) -> str:
    """Return the resource indicator of the API that a URL belongs to, by the platform's own layout."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    first = parts.path.strip("/").split("/")[0]
    if origin == management and first in MANAGEMENT_APIS:
        return f"{origin}/{first}/v1"
    if origin == management and first in PLATFORM_APIS:
        return f"{origin}/platform/v1"
    return f"{origin}/"


async def _proof(
    platform: PlatformClient,
    node: str,
    url: str,
    result: AttestationResult,
    sign: SignDigest,
    now: datetime,
    request: x509.CertificateSigningRequest | None = None,
) -> dict[str, str]:
    challenge = await platform.pop_challenge()
    claims: dict[str, Any] = pop_claims(node=node, audience=url, challenge=challenge, now=now, csr=request)
    return {
        "OAuth-Client-Attestation": result.text,
        "OAuth-Client-Attestation-PoP": await signed_jwt(claims, typ=POP_TYPE, sign=sign),
    }
