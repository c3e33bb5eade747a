"""Compact JWTs (RFC 7519): signed, verified, and looked into before that."""

import json
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from umec_core.jose.errors import JwtAlgorithm, JwtHeader, JwtMalformed, JwtSignature, JwtType
from umec_core.jose.jwk import ALGORITHM, KeySet, thumbprint
from umec_core.jose.text import base64url_decode, strict_json

__all__ = ["peek_claims", "peek_header", "peek_kid", "sign_jwt", "verify_jwt"]

MAX_JWT: Final = 128 * 1024
"""Characters; a standing statement of some hundred nodes is the longest token that we make (the feed pages beyond)."""

MAX_HEADER: Final = 2048
"""Bytes; joserfc's 512 are too few for a header that carries a key and its use."""

KEPT_PRIVATE: Final = 8
"""Private keys that were signed with lately: those of a service, which holds them anyway."""

HEADERS: Final = frozenset({"alg", "typ", "kid"})
"""The header members of our tokens; a proof also carries `jwk`. `crit`, `jku`, `x5u` and `x5c` would change how the
signature is judged, so they are refused."""

_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_registry: Final = jws.JWSRegistry(algorithms=[ALGORITHM])
_registry.max_header_length = MAX_HEADER


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
