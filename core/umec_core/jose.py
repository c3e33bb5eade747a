"""JSON Web Tokens and keys: ES256 over P-256, strict text, and every header member accounted for.

    JwtInvalid
    ├── JwtMalformed      jwt-malformed      not a compact JWS of a JSON object, or longer than `MAX_JWT`
    ├── JwtHeader         jwt-header         a header member that we do not accept
    ├── JwtAlgorithm      jwt-algorithm      another algorithm than ES256
    ├── JwtType           jwt-type           another kind of token than the caller asked for
    ├── JwtKeyUnknown     jwt-key-unknown    no key of the set has that identifier
    ├── JwtSignature      jwt-signature      the signature does not match
    ├── JwtClaim          jwt-claim          a claim is missing or of another shape
    └── JwtExpired        jwt-expired        its time is over, has not come, or is longer than allowed
    JwkInvalid            jwk-invalid        not a public P-256 key, or one that holds its private part

joserfc signs, verifies and imports keys. What it tolerates and we refuse (base64 padding, members given twice, headers
that carry keys, weak keys) is checked here.
"""

import binascii
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NoReturn, Protocol

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from umec_core.errors import Invalid

__all__ = [
    "ALGORITHM",
    "JwkInvalid",
    "JwtAlgorithm",
    "JwtClaim",
    "JwtExpired",
    "JwtHeader",
    "JwtInvalid",
    "JwtKeyUnknown",
    "JwtMalformed",
    "JwtSignature",
    "JwtType",
    "KeySet",
    "KeySource",
    "base64url_decode",
    "base64url_encode",
    "check_times",
    "claim_text",
    "claim_time",
    "peek_claims",
    "peek_header",
    "peek_kid",
    "private_jwk",
    "private_key",
    "public_jwk",
    "public_key",
    "sign_jwt",
    "strict_json",
    "thumbprint",
    "verify_jwt",
]

ALGORITHM: Final = "ES256"
"""The one algorithm: every part that we talk to knows it, and one algorithm cannot be confused with another."""

MAX_JWT: Final = 128 * 1024
"""Characters; a standing statement of some hundred nodes is the longest token that we make (the feed pages beyond)."""

MAX_HEADER: Final = 2048
"""Bytes; joserfc's 512 are too few for a header that carries a key and its use."""

MAX_TEXT: Final = 512
"""Characters of a claim that names somebody or something."""

KEPT: Final = 1024
"""Public keys that were read lately and are not read again; about 2 KB each."""

KEPT_PRIVATE: Final = 8
"""Private keys that were signed with lately: those of a service, which holds them anyway."""

SKEW: Final = timedelta(seconds=10)
"""How far the clock of a peer may be ahead (FAPI 2.0 Security Profile, 5.3.2.1)."""

HEADERS: Final = frozenset({"alg", "typ", "kid"})
"""The header members of our tokens; a proof also carries `jwk`. `crit`, `jku`, `x5u` and `x5c` would change how the
signature is judged, so they are refused."""

_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_registry: Final = jws.JWSRegistry(algorithms=[ALGORITHM])
_registry.max_header_length = MAX_HEADER


class JwtInvalid(Invalid):
    """A token is not what it says, or not what was asked for."""

    code = "jwt-invalid"


class JwtMalformed(JwtInvalid):
    """The text is not a compact JWS of a JSON object, or it is too long."""

    code = "jwt-malformed"


class JwtHeader(JwtInvalid):
    """The header has a member that we do not accept, or one of the wrong shape."""

    code = "jwt-header"


class JwtAlgorithm(JwtInvalid):
    """The token is signed with another algorithm than ES256."""

    code = "jwt-algorithm"


class JwtType(JwtInvalid):
    """The token is of another kind than the caller asked for."""

    code = "jwt-type"


class JwtKeyUnknown(JwtInvalid):
    """No key of the set has the identifier that the token names."""

    code = "jwt-key-unknown"


class JwtSignature(JwtInvalid):
    """The signature does not match."""

    code = "jwt-signature"


class JwtClaim(JwtInvalid):
    """A claim is missing or of another shape."""

    code = "jwt-claim"


class JwtExpired(JwtInvalid):
    """The time of the token is over, has not come, or is longer than allowed."""

    code = "jwt-expired"


class JwkInvalid(Invalid):
    """A JWK is not a public P-256 key, or it holds its private part."""

    code = "jwk-invalid"


def base64url_encode(data: bytes) -> str:
    """Return base64url without padding (RFC 7515, section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def base64url_decode(text: str) -> bytes:
    """Return the bytes of base64url without padding, in its one canonical spelling; raises `JwtMalformed` otherwise."""
    if _BASE64URL.fullmatch(text) is None:
        raise JwtMalformed("not base64url without padding")
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise JwtMalformed("not base64url without padding") from error
    if base64url_encode(data) != text:
        raise JwtMalformed("base64url whose last character has unused bits set")
    return data


def strict_json(data: bytes) -> Mapping[str, Any]:
    """Return a JSON object whose members are named once and whose numbers are numbers; raises `JwtMalformed`."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise JwtMalformed("not a JSON object with each member once") from error
    if not isinstance(value, dict):
        raise JwtMalformed("not a JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is given twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def public_jwk(key: EllipticCurvePrivateKey | EllipticCurvePublicKey) -> dict[str, str]:
    """Return the public JWK (kty, crv, x, y) of a P-256 key."""
    public = key.public_key() if isinstance(key, EllipticCurvePrivateKey) else key
    numbers = public.public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": base64url_encode(numbers.x.to_bytes(32, "big")),
        "y": base64url_encode(numbers.y.to_bytes(32, "big")),
    }


def private_jwk(key: EllipticCurvePrivateKey) -> dict[str, str]:
    """Return the private JWK of a P-256 key, for a credential file; named and marked as other clients want it."""
    secret = base64url_encode(key.private_numbers().private_value.to_bytes(32, "big"))
    return {**public_jwk(key), "d": secret, "kid": thumbprint(key), "use": "sig", "alg": ALGORITHM}


def public_key(jwk: Mapping[str, Any]) -> EllipticCurvePublicKey:
    """Return the P-256 key of a public JWK; raises `JwkInvalid` for anything else, private keys too.

    Members that say how the key is used (`kid`, `use`, `alg`, `key_ops`) must not contradict signing with ES256.
    """
    if "d" in jwk:
        raise JwkInvalid("the key holds its private part", advice="make a new key: this one has been shown")
    if jwk.get("use", "sig") != "sig" or jwk.get("alg", ALGORITHM) != ALGORITHM:
        raise JwkInvalid("the key is made for another use than ES256 signatures")
    _check_members(jwk)
    return _point(jwk["x"], jwk["y"])


@lru_cache(maxsize=KEPT)
def _point(x: str, y: str) -> EllipticCurvePublicKey:
    raw = _import({"kty": "EC", "crv": "P-256", "x": x, "y": y}).raw_value
    if not isinstance(raw, EllipticCurvePublicKey):
        raise JwkInvalid("not a public key")
    return raw


def private_key(jwk: Mapping[str, Any]) -> EllipticCurvePrivateKey:
    """Return the P-256 key of a private JWK; raises `JwkInvalid`."""
    raw = _import(jwk).raw_value
    if not isinstance(raw, EllipticCurvePrivateKey):
        raise JwkInvalid("not a private key")
    return raw


def _check_members(jwk: Mapping[str, Any]) -> None:
    if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256":
        raise JwkInvalid(f"a key of type {jwk.get('kty')!r}, expected EC on P-256")
    for name in ("x", "y", *(["d"] if "d" in jwk else [])):
        value = jwk.get(name)
        try:
            if not isinstance(value, str) or len(base64url_decode(value)) != 32:
                raise JwkInvalid(f"{name} is not 32 bytes in base64url")
        except JwtMalformed as error:
            raise JwkInvalid(f"{name} is not 32 bytes in base64url") from error


def _import(jwk: Mapping[str, Any]) -> ECKey:
    _check_members(jwk)
    try:
        key = ECKey.import_key({name: jwk[name] for name in ("kty", "crv", "x", "y", "d") if name in jwk})
    except (JoseError, ValueError, TypeError) as error:
        raise JwkInvalid("the numbers are not a point and its scalar on P-256") from error
    return key


def thumbprint(key: Mapping[str, Any] | EllipticCurvePublicKey | EllipticCurvePrivateKey) -> str:
    """Return the SHA-256 thumbprint of a key (RFC 7638) in base64url."""
    jwk = public_jwk(key) if isinstance(key, EllipticCurvePublicKey | EllipticCurvePrivateKey) else key
    _check_members({name: jwk[name] for name in ("kty", "crv", "x", "y")})
    return _thumbprint(jwk["x"], jwk["y"])


@lru_cache(maxsize=KEPT)
def _thumbprint(x: str, y: str) -> str:
    return _import({"kty": "EC", "crv": "P-256", "x": x, "y": y}).thumbprint()


class KeySet:
    """Public keys by identifier: the `kid` of a JWKS, and always the thumbprint."""

    __slots__ = ("_by_kid", "_keys")

    def __init__(self, keys: Sequence[EllipticCurvePublicKey], *, kids: Sequence[str | None] = ()) -> None:
        if not keys:
            raise JwkInvalid("a set without keys verifies nothing")
        self._keys: dict[str, ECKey] = {}
        self._by_kid: dict[str, ECKey] = {}
        names = [*kids, *([None] * (len(keys) - len(kids)))]
        for key, kid in zip(keys, names, strict=True):
            if not isinstance(key.curve, SECP256R1):
                raise JwkInvalid(f"a key on {key.curve.name}, expected P-256")
            imported = ECKey.import_key(key)
            if kid is not None and self._by_kid.setdefault(kid, imported) is not imported:
                raise JwkInvalid(f"two keys have the identifier {kid!r}")
            self._keys[imported.thumbprint()] = imported

    @classmethod
    def from_jwks(cls, jwks: Mapping[str, Any], *, strict: bool = True) -> "KeySet":
        """Return the keys of a JWK set; raises `JwkInvalid`.

        `strict` (a set that is being registered) refuses the set for one bad key; otherwise keys of kinds that we do
        not know are left out, as RFC 7517, section 5 says, and at least one must remain.
        """
        listed = jwks.get("keys")
        if not isinstance(listed, list) or not all(isinstance(key, dict) for key in listed):
            raise JwkInvalid("keys is not a list of objects")
        usable = [key for key in listed if strict or (key.get("kty"), key.get("crv")) == ("EC", "P-256")]
        kids = [key.get("kid") for key in usable]
        if not all(kid is None or (isinstance(kid, str) and 0 < len(kid) <= MAX_TEXT) for kid in kids):
            raise JwkInvalid("kid is not a short text")
        return cls([public_key(key) for key in usable], kids=kids)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the set as published: each key once, under its thumbprint."""
        return {
            "keys": [
                {**public_jwk(key.public_key), "kid": kid, "use": "sig", "alg": ALGORITHM}
                for kid, key in self._keys.items()
            ]
        }

    def thumbprints(self) -> tuple[str, ...]:
        """Return the thumbprints of the keys."""
        return tuple(self._keys)

    def find(self, kid: str | None) -> ECKey:
        """Return the key with that identifier, or the only key where a token names none; raises `JwtKeyUnknown`."""
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        key = None if kid is None else self._by_kid.get(kid) or self._keys.get(kid)
        if key is None:
            raise JwtKeyUnknown("no key has the identifier that the token names")
        return key

    def __contains__(self, kid: object) -> bool:
        return kid in self._by_kid or kid in self._keys

    def __len__(self) -> int:
        return len(self._keys)


class KeySource(Protocol):
    """Where the keys of a peer come from; `umec_core.tokens` has the built-in ones."""

    async def keys(self, kid: str | None) -> KeySet:
        """Return the keys of the peer, read anew if `kid` is not among the known ones; raises `Unavailable`."""
        ...


def sign_jwt(
    claims: Mapping[str, Any],
    key: EllipticCurvePrivateKey,
    *,
    typ: str,
    kid: str | None = None,
    extra_header: Mapping[str, Any] | None = None,
) -> str:
    """Return a compact JWT signed with ES256.

    Its `kid` is the thumbprint of the key unless another is given; a header that carries the key itself names none.
    """
    header: dict[str, Any] = {"alg": ALGORITHM, "typ": typ, **(extra_header or {})}
    if "jwk" not in header:
        header["kid"] = kid if kid is not None else thumbprint(key)
    payload = json.dumps(claims, separators=(",", ":"), allow_nan=False)
    return jws.serialize_compact(header, payload, _signing(key), registry=_registry)


@lru_cache(maxsize=KEPT_PRIVATE)
def _signing(key: EllipticCurvePrivateKey) -> ECKey:
    return ECKey.import_key(key)


def peek_header(token: str) -> Mapping[str, Any]:
    """Return the header of a compact JWT, which nobody has verified; raises `JwtMalformed`."""
    return _peek(token, 0)


def peek_kid(token: str) -> str | None:
    """Return the key identifier that an unverified token names; raises `JwtMalformed`."""
    kid = peek_header(token).get("kid")
    return kid if isinstance(kid, str) else None


def peek_claims(token: str) -> Mapping[str, Any]:
    """Return the claims of a compact JWT, which nobody has verified: good for finding whose key to try, and no more."""
    return _peek(token, 1)


def _peek(token: str, part: int) -> Mapping[str, Any]:
    if len(token) > MAX_JWT:
        raise JwtMalformed(f"{len(token)} characters, at most {MAX_JWT} are read")
    if _COMPACT.fullmatch(token) is None:
        raise JwtMalformed("not three parts of base64url without padding")
    return strict_json(base64url_decode(token.split(".")[part]))


def verify_jwt(
    token: str, keys: KeySet, *, typ: str | Collection[str | None], headers: Collection[str] = HEADERS
) -> Mapping[str, Any]:
    """Return the claims of a token that a key of the set signed; raises a `JwtInvalid`.

    1. It is a compact JWS of bounded size. 2. Its header has only members that we know. 3. Its algorithm is ES256.
    4. Its kind is the one asked for (`typ`; None in a collection stands for "not given"). 5. It names a key of the set.
    6. The signature matches. 7. The claims are one JSON object. What the claims say is for the caller to judge.
    """
    header = peek_header(token)  # 1
    _check_header(header, typ, headers)  # 2, 3, 4
    key = keys.find(header.get("kid"))  # 5
    try:
        signed = jws.deserialize_compact(token, key, registry=_registry)  # 6
    except (JoseError, ValueError) as error:
        raise JwtSignature("the signature does not match") from error
    return strict_json(signed.payload or b"")  # 7


def _check_header(header: Mapping[str, Any], typ: str | Collection[str | None], headers: Collection[str]) -> None:
    if not header.keys() <= set(headers):
        raise JwtHeader(f"header members {sorted(header.keys() - set(headers))} are not accepted")
    if header.get("alg") != ALGORITHM:
        raise JwtAlgorithm(f"expected {ALGORITHM}")
    if not isinstance(header.get("kid", ""), str):
        raise JwtHeader("kid is not a text")
    given = header.get("typ")
    if given is not None and not isinstance(given, str):
        raise JwtHeader("typ is not a text")
    allowed = (typ,) if isinstance(typ, str) else typ
    if _media_type(given) not in {_media_type(kind) for kind in allowed}:
        raise JwtType(f"expected typ {' or '.join(str(kind) for kind in allowed)}")


def _media_type(typ: str | None) -> str | None:
    """Return a `typ` as RFC 7515, section 4.1.9 compares it: without case and without "application/"."""
    return None if typ is None else typ.lower().removeprefix("application/")


def claim_text(claims: Mapping[str, Any], name: str, *, longest: int = MAX_TEXT) -> str:
    """Return a claim that is a printable text of 1 to `longest` characters; raises `JwtClaim`."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        raise JwtClaim(f"{name} is not a printable text of 1 to {longest} characters")
    return value


def claim_time(claims: Mapping[str, Any], name: str) -> float:
    """Return a claim that is a NumericDate, in seconds since 1970; raises `JwtClaim`."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**40:
        raise JwtClaim(f"{name} is not a time in seconds")
    return float(value)


def check_times(claims: Mapping[str, Any], now: datetime, *, longest: timedelta) -> None:
    """Check that `iat` and `exp` are there, that now lies between them, and that they are at most `longest` apart.

    A clock may be `SKEW` ahead of ours; nothing is accepted after its `exp`. Raises `JwtClaim` or `JwtExpired`.
    """
    issued, expires, present = claim_time(claims, "iat"), claim_time(claims, "exp"), now.timestamp()
    ahead = present + SKEW.total_seconds()
    if issued > ahead or ("nbf" in claims and claim_time(claims, "nbf") > ahead):
        raise JwtExpired("its time has not come")
    if expires <= present:
        raise JwtExpired("its time is over")
    if expires - min(issued, present) > longest.total_seconds() + SKEW.total_seconds():
        raise JwtExpired(f"it is valid for longer than {longest.total_seconds():.0f} s")
