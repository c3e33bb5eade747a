"""P-256 keys as JWK (RFC 7517), their thumbprints (RFC 7638), and sets of them."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from umec_core.jose.claims import MAX_TEXT
from umec_core.jose.errors import JwkInvalid, JwtKeyUnknown, JwtMalformed
from umec_core.jose.text import base64url_decode, base64url_encode

__all__ = [
    "ALGORITHM",
    "KEPT",
    "KeySet",
    "KeySource",
    "private_jwk",
    "private_key",
    "public_jwk",
    "public_key",
    "thumbprint",
]

ALGORITHM: Final = "ES256"
"""The one algorithm: every part that we talk to knows it, and one algorithm cannot be confused with another."""

KEPT: Final = 1024
"""Public keys that were read lately and are not read again; about 2 KB each."""


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
    return _import({"kty": "EC", "crv": "P-256", "x": x, "y": y}).public_key


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
        self._keys: dict[str, EllipticCurvePublicKey] = {}
        self._by_kid: dict[str, EllipticCurvePublicKey] = {}
        names = [*kids, *([None] * (len(keys) - len(kids)))]
        for key, kid in zip(keys, names, strict=True):
            if not isinstance(key.curve, SECP256R1):
                raise JwkInvalid(f"a key on {key.curve.name}, expected P-256")
            if kid is not None and self._by_kid.setdefault(kid, key) is not key:
                raise JwkInvalid(f"two keys have the identifier {kid!r}")
            self._keys[thumbprint(key)] = key

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
            "keys": [{**public_jwk(key), "kid": kid, "use": "sig", "alg": ALGORITHM} for kid, key in self._keys.items()]
        }

    def thumbprints(self) -> tuple[str, ...]:
        """Return the thumbprints of the keys."""
        return tuple(self._keys)

    def find(self, kid: str | None) -> EllipticCurvePublicKey:
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
