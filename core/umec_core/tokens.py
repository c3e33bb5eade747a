"""Access tokens at an API: from what a request presents to a `Principal`, or one refusal with a stable code.

TokenMissing    token-missing    nobody asks
TokenInvalid    token-invalid    not a token of our authorization server
TokenExpired    token-expired    its time is over or has not come
TokenAudience   token-audience   made for another API
TokenBinding    token-binding    not presented by its holder, or not in the way that it is bound
(umec_core.principal: token-scope; umec_core.dpop: dpop-*; umec_core.standing: standing-*)
"""

import asyncio
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from umec_core.clock import Clock
from umec_core.dpop import DpopForeign, ReplayCache, verify_proof
from umec_core.errors import UmecError, Unauthenticated, Unavailable
from umec_core.jose import (
    JwkInvalid,
    JwtExpired,
    JwtInvalid,
    JwtMalformed,
    KeySet,
    KeySource,
    base64url_encode,
    check_times,
    claim_text,
    peek_kid,
    strict_json,
    verify_jwt,
)
from umec_core.principal import Binding, Principal, TokenScope
from umec_core.standing import StandingView

__all__ = [
    "ACCESS_TOKEN_TYPE",
    "BearerPolicy",
    "Denied",
    "KeySource",
    "KeysUnavailable",
    "Presented",
    "RemoteKeys",
    "StaticKeys",
    "TokenAudience",
    "TokenBinding",
    "TokenExpired",
    "TokenInvalid",
    "TokenMissing",
    "TokenRevoked",
    "TokenScope",
    "TokenVerifier",
    "certificate_thumbprint",
]

ACCESS_TOKEN_TYPE: Final = "at+jwt"  # noqa: S105 - the media type of RFC 9068

MAX_TOKEN: Final = 8192
"""Characters; ours have about 900, and every API reads them before it knows who asks."""

MAX_LIFE: Final = timedelta(seconds=300)
"""A token is valid for five minutes at most: that bounds what a stolen one is worth outside of our own APIs."""

CACHED: Final = 4096
"""Verified tokens that a verifier remembers; each is about 2 KB."""

REFETCH: Final = timedelta(seconds=10)
"""A key set is fetched at most this often, so that made-up key identifiers cannot drive us to ask its owner."""

KEYS_LIFE: Final = timedelta(minutes=5)
"""A key set is fetched anew after this time, so that a withdrawn key goes."""

MAX_JWKS: Final = 64 * 1024
"""Bytes of a key set."""


class TokenMissing(Unauthenticated):
    """The request presents no access token."""

    code = "token-missing"


class TokenInvalid(Unauthenticated):
    """The token is not one of our authorization server."""

    code = "token-invalid"


class TokenExpired(Unauthenticated):
    """The time of the token is over, or has not come."""

    code = "token-expired"


class TokenAudience(Unauthenticated):
    """The token was made for another API."""

    code = "token-audience"


class TokenBinding(Unauthenticated):
    """The token is not presented by its holder, or not in the way that it is bound."""

    code = "token-binding"


class TokenRevoked(Unauthenticated):
    """The token, or its client, was revoked."""

    code = "token-revoked"


class KeysUnavailable(Unavailable):
    """The keys of a peer cannot be read right now."""

    code = "keys-unavailable"


@dataclass(frozen=True, slots=True)
class Presented:
    """What a request presents.

    `scheme` and `token` are the two parts of its Authorization header (None where there is none), `proof` its DPoP
    header, `client_certificate` (DER) what the client showed in the TLS handshake.
    """

    scheme: str | None
    token: str | None
    proof: str | None
    method: str
    url: str
    client_certificate: bytes | None = None


BearerPolicy = Callable[[Principal, Presented], bool]
"""Says whether this API takes an unbound token from that request."""


Denied = Callable[[Mapping[str, Any]], bool]
"""Says whether verified claims belong to a token that was revoked."""


class StaticKeys:
    """A key set that is known beforehand."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    async def keys(self, kid: str | None) -> KeySet:  # noqa: ARG002 - nothing to read anew
        """Return the set."""
        return self._keys


class HttpGet(Protocol):
    """What `RemoteKeys` needs of an HTTP client: returns the body of a 200 answer, raises `Unavailable` otherwise."""

    async def __call__(self, url: str, *, limit: int) -> bytes:
        """Return the body, of at most `limit` bytes."""
        ...


class RemoteKeys:
    """The key set behind a URL: read when first needed, kept for five minutes, read anew for an unknown identifier."""

    def __init__(self, url: str, get: HttpGet, *, clock: Clock) -> None:
        self._url = url
        self._get = get
        self._clock = clock
        self._known: KeySet | None = None
        self._read_at: datetime | None = None
        self._asked_at: datetime | None = None
        self._lock = asyncio.Lock()

    async def keys(self, kid: str | None) -> KeySet:
        """Return the set; raises `KeysUnavailable` while none could be read.

        A set that is older than `KEYS_LIFE` and cannot be renewed is not used.
        """
        if self._fresh(kid) is None and self._may_ask(kid):
            async with self._lock:
                if self._fresh(kid) is None and self._may_ask(kid):
                    await self._read()
        known = self._fresh(None)
        if known is None:
            raise KeysUnavailable(f"the keys at {self._url} cannot be read", advice="is that service up?")
        return known

    def _fresh(self, kid: str | None) -> KeySet | None:
        if self._known is None or self._read_at is None or self._clock() - self._read_at > KEYS_LIFE:
            return None
        return self._known if kid is None or kid in self._known else None

    def _may_ask(self, kid: str | None) -> bool:
        """A first reading may be repeated at once; one for an unknown identifier waits its turn."""
        waits = self._fresh(None) is not None and kid is not None
        return not waits or self._asked_at is None or self._clock() - self._asked_at >= REFETCH

    async def _read(self) -> None:
        self._asked_at = self._clock()
        try:
            read = KeySet.from_jwks(strict_json(await self._get(self._url, limit=MAX_JWKS)), strict=False)
        except (UmecError, OSError):
            return
        self._known, self._read_at = read, self._asked_at


def certificate_thumbprint(certificate: bytes) -> str:
    """Return x5t#S256 of a certificate in DER (RFC 8705, section 3.1)."""
    return base64url_encode(hashlib.sha256(certificate).digest())


@dataclass(frozen=True, slots=True)
class _Verified:
    """Claims whose signature and shape were checked, as the cache keeps them."""

    claims: Mapping[str, Any]
    principal: Principal
    confirmation: str | None


class TokenVerifier:
    """Makes a `Principal` of what a request presents; one for each API.

    A token that verified once is remembered by its whole text, which alone determines the claims (base64url has one
    spelling here); its times, its binding and its node's standing are checked at every call.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        keys: KeySource,
        standings: StandingView | None,
        clock: Clock,
        replay: ReplayCache | None = None,
        allow_bearer: BearerPolicy | bool = False,
        denied: Denied | None = None,
        resource_metadata: str | None = None,
        base: str | None = None,
    ) -> None:
        """`base` is the listener's own URL without a path, for proofs; that of the audience unless given."""
        if not issuer or not audience:
            raise ValueError("a verifier needs an issuer and an audience")
        self.audience: Final = audience
        self.base: Final = _origin(audience) if base is None else base.rstrip("/")
        self.resource_metadata: Final = resource_metadata
        self._issuer = issuer
        self._keys = keys
        self._standings = standings
        self._clock = clock
        self._replay = replay if replay is not None else ReplayCache()
        self._allow_bearer = allow_bearer
        self._denied = denied
        self._cache: OrderedDict[str, _Verified] = OrderedDict()

    async def verify(self, presented: Presented) -> Principal:
        """Return who asks; raises one of the errors in the head of this module.

        1. A token is presented. 2. Our authorization server signed it as an access token, with every claim of RFC 9068
        that we rely on. 3. It is for this API. 4. Its time is now, and short. 5. Its holder presents it. 6. If it is
        bound to a node, that node stands, in the generation of the token. 7. It was not revoked, as far as is known.
        """
        token = _presented_token(presented)  # 1
        verified = self._cache.get(token)
        if verified is None:
            verified = await self._verify_text(token)  # 2, 3
        now = self._clock()
        _check_times(verified.claims, now)  # 4
        self._check_binding(verified, presented, token, now)  # 5
        self._check_standing(verified.principal, now)  # 6
        if self._denied is not None and self._denied(verified.claims):  # 7
            raise TokenRevoked("the access token was revoked", advice="ask for a new one")
        self._remember(token, verified)
        return verified.principal

    async def _verify_text(self, token: str) -> _Verified:
        try:
            keys = await self._keys.keys(peek_kid(token))
            claims = verify_jwt(token, keys, typ=ACCESS_TOKEN_TYPE)
            if claim_text(claims, "iss") != self._issuer:
                raise TokenInvalid(f"the token is of another issuer than {self._issuer}")
            _check_times(claims, self._clock())
            if claims.get("aud") != self.audience:
                raise TokenAudience(
                    f"the token is for another API than {self.audience}",
                    advice=f"ask for a token with resource={self.audience}",
                )
            return _verified(claims)
        except (JwtInvalid, JwkInvalid) as error:
            raise TokenInvalid(f"the access token is not valid: {error.detail}") from error

    def _check_binding(self, verified: _Verified, presented: Presented, token: str, now: datetime) -> None:
        scheme = (presented.scheme or "").lower()
        binding = verified.principal.binding
        if scheme != ("dpop" if binding == "dpop" else "bearer"):
            raise TokenBinding(f"a token with binding {binding} is presented with the scheme {scheme}")
        if binding == "dpop":
            self._check_proof(verified, presented, token, now)
        elif binding == "mtls":
            _check_certificate(verified, presented)
        else:
            self._check_bearer(verified.principal, presented)

    def _check_proof(self, verified: _Verified, presented: Presented, token: str, now: datetime) -> None:
        if presented.proof is None:
            raise TokenBinding("the token is bound to a key, and the request has no proof in a DPoP header")
        try:
            verify_proof(
                presented.proof,
                method=presented.method,
                url=presented.url,
                now=now,
                replay=self._replay,
                access_token=token,
                holder=verified.confirmation or "",
            )
        except DpopForeign as error:
            raise TokenBinding("the proof is by another key than the one that the token is bound to") from error

    def _check_bearer(self, principal: Principal, presented: Presented) -> None:
        allowed = (
            self._allow_bearer if isinstance(self._allow_bearer, bool) else self._allow_bearer(principal, presented)
        )
        if not allowed:
            raise TokenBinding("the token is bound to no key, and this API does not take such tokens")

    def _check_standing(self, principal: Principal, now: datetime) -> None:
        if principal.node is None or principal.generation is None:
            return
        view = self._standings if self._standings is not None else StandingView()
        view.check(principal.node, principal.generation, now)

    def _remember(self, token: str, verified: _Verified) -> None:
        self._cache[token] = verified
        self._cache.move_to_end(token)
        while len(self._cache) > CACHED:
            self._cache.popitem(last=False)


def _origin(audience: str) -> str:
    parts = urlsplit(audience)
    if not parts.scheme or not parts.netloc:
        raise ValueError("a verifier needs the address of its API: an audience that is a URL, or a base")
    return f"{parts.scheme}://{parts.netloc}"


def _presented_token(presented: Presented) -> str:
    if presented.scheme is None or presented.token is None or presented.scheme.lower() not in {"bearer", "dpop"}:
        raise TokenMissing("the request presents no access token in an Authorization header")
    if len(presented.token) > MAX_TOKEN:
        raise TokenInvalid(f"the access token is longer than {MAX_TOKEN} characters")
    return presented.token


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    try:
        check_times(claims, now, longest=MAX_LIFE)
    except JwtExpired as error:
        raise TokenExpired(f"the access token is not valid now: {error.detail}", advice="ask for a new one") from error


def _check_certificate(verified: _Verified, presented: Presented) -> None:
    if presented.client_certificate is None:
        raise TokenBinding("the token is bound to a certificate, and the client showed none")
    shown = certificate_thumbprint(presented.client_certificate)
    if not hmac.compare_digest(shown, verified.confirmation or ""):
        raise TokenBinding("the client showed another certificate than the one that the token is bound to")


def _verified(claims: Mapping[str, Any]) -> _Verified:
    """Return the principal of verified claims; raises `JwtInvalid` where one has another shape."""
    node, generation = _optional(claims, "node"), claims.get("generation")
    if (node is None) != (generation is None) or isinstance(generation, bool) or not isinstance(generation, int | None):
        raise JwtMalformed("node and generation come together, and the generation is a whole number")
    binding, confirmation = _binding(claims.get("cnf"))
    scope = _optional(claims, "scope")
    principal = Principal(
        subject=claim_text(claims, "sub"),
        client_id=claim_text(claims, "client_id"),
        scopes=frozenset() if scope is None else frozenset(scope.split()),
        audience=claim_text(claims, "aud"),
        tenant=_optional(claims, "tenant"),
        node=node,
        generation=generation,
        instance=_optional(claims, "instance"),
        expires=datetime.fromtimestamp(claims["exp"], UTC),
        jti=claim_text(claims, "jti"),
        binding=binding,
    )
    return _Verified(claims=claims, principal=principal, confirmation=confirmation)


def _optional(claims: Mapping[str, Any], name: str) -> str | None:
    """Return a claim that may be absent; an empty one is neither there nor absent, and refused."""
    return None if claims.get(name) is None else claim_text(claims, name, longest=2048)


def _binding(confirmation: object) -> tuple[Binding, str | None]:
    """Return how a token is bound, by its `cnf`; an unknown or a double binding is an error, never "unbound"."""
    if confirmation is None:
        return "bearer", None
    if isinstance(confirmation, Mapping) and len(confirmation) == 1:
        if "jkt" in confirmation:
            return "dpop", claim_text(confirmation, "jkt")
        if "x5t#S256" in confirmation:
            return "mtls", claim_text(confirmation, "x5t#S256")
    raise JwtMalformed("cnf is neither one jkt nor one x5t#S256")
