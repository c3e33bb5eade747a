"""From what a request presents to a `Principal`."""

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from umec_core.clock import Clock
from umec_core.dpop import DpopForeign, ReplayCache, verify_proof
from umec_core.jose import (
    JwkInvalid,
    JwtExpired,
    JwtInvalid,
    KeySource,
    base64url_encode,
    check_times,
    claim_text,
    peek_kid,
    verify_jwt,
)
from umec_core.principal import Principal
from umec_core.standing import StandingView
from umec_core.tokens.claims import Verified, read_claims
from umec_core.tokens.errors import (
    TokenAudience,
    TokenBinding,
    TokenExpired,
    TokenInvalid,
    TokenMissing,
    TokenRevoked,
)

__all__ = [
    "ACCESS_TOKEN_TYPE",
    "MAX_LIFE",
    "BearerPolicy",
    "Denied",
    "Presented",
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


def certificate_thumbprint(certificate: bytes) -> str:
    """Return x5t#S256 of a certificate in DER (RFC 8705, section 3.1)."""
    return base64url_encode(hashlib.sha256(certificate).digest())


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
        self._cache: OrderedDict[str, Verified] = OrderedDict()

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

    async def _verify_text(self, token: str) -> Verified:
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
            return read_claims(claims)
        except (JwtInvalid, JwkInvalid) as error:
            raise TokenInvalid(f"the access token is not valid: {error.detail}") from error

    def _check_binding(self, verified: Verified, presented: Presented, token: str, now: datetime) -> None:
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

    def _check_proof(self, verified: Verified, presented: Presented, token: str, now: datetime) -> None:
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

    def _remember(self, token: str, verified: Verified) -> None:
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


def _check_certificate(verified: Verified, presented: Presented) -> None:
    if presented.client_certificate is None:
        raise TokenBinding("the token is bound to a certificate, and the client showed none")
    shown = certificate_thumbprint(presented.client_certificate)
    if not hmac.compare_digest(shown, verified.confirmation or ""):
        raise TokenBinding("the client showed another certificate than the one that the token is bound to")
