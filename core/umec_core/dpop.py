"""Proofs of possession by an application's key (DPoP, RFC 9449): made by clients, verified once by servers.

DpopInvalid      dpop-invalid       a proof is not one for this request, this token and this time
DpopForeign      dpop-foreign       a proof is by another key than the one that was asked for
DpopReplayed     dpop-replayed      a proof was used before
ReplayQuota      replay-quota       one payer has used more proofs than its share
ReplayCacheFull  replay-cache-full  too many tokens are remembered to remember one more
"""

import hashlib
import heapq
import hmac
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from umec_core.errors import Kind, UmecError, Unauthenticated, Unavailable
from umec_core.jose import (
    KEPT,
    SKEW,
    JwkInvalid,
    JwtInvalid,
    KeySet,
    base64url_encode,
    claim_text,
    claim_time,
    peek_header,
    public_jwk,
    public_key,
    sign_jwt,
    verify_jwt,
)

__all__ = [
    "DpopForeign",
    "DpopInvalid",
    "DpopReplayed",
    "ReplayCache",
    "ReplayCacheFull",
    "ReplayQuota",
    "VerifiedProof",
    "make_proof",
    "verify_proof",
]

PROOF_TYPE: Final = "dpop+jwt"

PROOF_HEADERS: Final = frozenset({"alg", "typ", "jwk"})

MAX_PROOF: Final = 4096
"""Characters; a proof with an ES256 key has about 600."""

MAX_JTI: Final = 128
"""Characters of the identifier of a proof: enough for any UUID or hash."""

PROOF_LIFE: Final = timedelta(seconds=60)
"""How long after its `iat` a proof is accepted."""

REMEMBERED: Final = 2**18
"""Entries of a replay cache: what 3,500 calls a second need within the life of a proof; about 40 MB when full."""

SHARE: Final = 8
"""One payer may hold this fraction of a cache (460 calls a second, all the time), so that nobody fills it alone."""


class DpopInvalid(Unauthenticated):
    """A proof is not one for this request, this token and this time."""

    code = "dpop-invalid"


class DpopForeign(Unauthenticated):
    """A proof is by another key than the one that was asked for."""

    code = "dpop-foreign"


class DpopReplayed(Unauthenticated):
    """A proof was used before."""

    code = "dpop-replayed"


class ReplayQuota(UmecError):
    """One payer has used more proofs within their life than its share: others shall not suffer from it."""

    code = "replay-quota"
    kind = Kind.TOO_MANY


class ReplayCacheFull(Unavailable):
    """Too many tokens are remembered to remember one more: refusing is the only safe answer."""

    code = "replay-cache-full"


class ReplayCache:
    """Remembers what was used until it is no longer valid anyway: in this process, bounded, closed when full."""

    def __init__(self, limit: int = REMEMBERED, *, quota: int | None = None) -> None:
        self._limit = limit
        self._quota = max(1, limit // SHARE) if quota is None else quota
        self._known: set[bytes] = set()
        self._order: list[tuple[float, bytes, str]] = []
        self._held: Counter[str] = Counter()

    def add(self, issuer: str, jti: str, *, until: datetime, now: datetime, payer: str | None = None) -> bool:
        """Remember (issuer, jti) until that time; returns False if it was remembered already.

        It counts towards the quota of `payer`, the issuer unless said. Call it only after the signature was verified
        and its key is known to be the right one, or anybody can burn what is another's. Raises `ReplayQuota` or
        `ReplayCacheFull`.
        """
        self._forget(now.timestamp())
        key = hashlib.sha256(f"{len(issuer)}|{issuer}|{jti}".encode()).digest()
        if key in self._known:
            return False
        who = issuer if payer is None else payer
        if self._held[who] >= self._quota:
            raise ReplayQuota("too many proofs are remembered of this client", advice="try again in a minute")
        if len(self._known) >= self._limit:
            raise ReplayCacheFull("too many tokens are remembered", advice="try again in a minute")
        self._known.add(key)
        self._held[who] += 1
        heapq.heappush(self._order, (until.timestamp(), key, who))
        return True

    def _forget(self, present: float) -> None:
        while self._order and self._order[0][0] < present:
            _, key, who = heapq.heappop(self._order)
            self._known.discard(key)
            self._held[who] -= 1
            if not self._held[who]:
                del self._held[who]


@dataclass(frozen=True, slots=True)
class VerifiedProof:
    """A proof that was good for one request; `thumbprint` names the key that made it."""

    thumbprint: str
    jti: str
    issued_at: datetime


def make_proof(
    key: EllipticCurvePrivateKey,
    method: str,
    url: str,
    *,
    now: datetime,
    access_token: str | None = None,
    nonce: str | None = None,
) -> str:
    """Return a proof for one request (RFC 9449, section 4.2); the query of the URL is not part of it."""
    claims: dict[str, Any] = {
        "jti": secrets.token_urlsafe(18),
        "htm": method.upper(),
        "htu": url.split("#", 1)[0].split("?", 1)[0],
        "iat": int(now.timestamp()),
    }
    if access_token is not None:
        claims["ath"] = _token_hash(access_token)
    if nonce is not None:
        claims["nonce"] = nonce
    return sign_jwt(claims, key, typ=PROOF_TYPE, extra_header={"jwk": public_jwk(key)})


def verify_proof(
    proof: str,
    *,
    method: str,
    url: str,
    now: datetime,
    replay: ReplayCache,
    access_token: str | None = None,
    holder: str | None = None,
    payer: str | None = None,
) -> VerifiedProof:
    """Return what a proof proves; raises `DpopInvalid`, `DpopForeign`, `DpopReplayed` or `ReplayQuota`.

    The steps of RFC 9449, section 4.3: 1. It is one JWT of bounded size, of type dpop+jwt, signed with ES256 by the
    public key in its header, and no member of the header is unknown. 2. It is for this method and URL. 3. It was made
    within the last minute. 4. It is for this access token, or for none if there is none. 5. Its key is the one with the
    thumbprint `holder`, where the caller knows it. 6. It was not used before; only what has passed all else is
    remembered, at the expense of `payer` (the key, unless said).
    """
    try:
        if len(proof) > MAX_PROOF:
            raise DpopInvalid(f"the proof is longer than {MAX_PROOF} characters")
        keys = _proof_keys(proof)
        claims = verify_jwt(proof, keys, typ=PROOF_TYPE, headers=PROOF_HEADERS)  # 1
        jti = claim_text(claims, "jti", longest=MAX_JTI)
        issued = _check_claims(claims, method, url, now)  # 2, 3
    except (JwtInvalid, JwkInvalid) as error:
        raise DpopInvalid(f"the proof is not valid: {error.detail}") from error
    if claims.get("ath") != (None if access_token is None else _token_hash(access_token)):  # 4
        raise DpopInvalid("the proof is for another access token")
    owner = keys.thumbprints()[0]
    if holder is not None and not hmac.compare_digest(owner, holder):  # 5
        raise DpopForeign("the proof is by another key than the one that it should be")
    if not replay.add(owner, jti, until=issued + PROOF_LIFE + SKEW, now=now, payer=payer):  # 6
        raise DpopReplayed("the proof was used before", advice="make a new proof for every request")
    return VerifiedProof(thumbprint=owner, jti=jti, issued_at=issued)


def _proof_keys(proof: str) -> KeySet:
    """Return the one key that a proof carries, as a set."""
    header = peek_header(proof)
    jwk = header.get("jwk")
    if not isinstance(jwk, Mapping):
        raise DpopInvalid("the proof carries no key")
    public_key(jwk)  # with what else is said of it: that is not the same at every time
    return _one_key(jwk["x"], jwk["y"])


@lru_cache(maxsize=KEPT)
def _one_key(x: str, y: str) -> KeySet:
    return KeySet([public_key({"kty": "EC", "crv": "P-256", "x": x, "y": y})])


def _check_claims(claims: Mapping[str, Any], method: str, url: str, now: datetime) -> datetime:
    if claim_text(claims, "htm") != method.upper():
        raise DpopInvalid("the proof is for another method")
    if _target(claim_text(claims, "htu", longest=2048)) != _target(url):
        raise DpopInvalid("the proof is for another URL")
    issued, present = claim_time(claims, "iat"), now.timestamp()
    if not present - PROOF_LIFE.total_seconds() <= issued <= present + SKEW.total_seconds():
        raise DpopInvalid(
            "the proof is not of the last minute", advice="make a new proof for every request; check the clock"
        )
    if "exp" in claims and claim_time(claims, "exp") <= present:
        raise DpopInvalid("the time of the proof is over")
    if "nbf" in claims and claim_time(claims, "nbf") > present + SKEW.total_seconds():
        raise DpopInvalid("the time of the proof has not come")
    return datetime.fromtimestamp(issued, now.tzinfo)


def _target(url: str) -> tuple[str, str, int | None, str]:
    """Return what is compared of a URL: scheme, host, port and path, the default port spelt out (RFC 9449, 4.3)."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise DpopInvalid("the proof is for something that is no URL") from error
    if parts.username is not None:
        raise DpopInvalid("the proof is for a URL with a user")
    return parts.scheme, parts.hostname or "", port or {"https": 443, "http": 80}.get(parts.scheme), parts.path or "/"


def _token_hash(token: str) -> str:
    return base64url_encode(hashlib.sha256(token.encode()).digest())
