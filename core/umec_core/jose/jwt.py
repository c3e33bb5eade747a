"""Compact JWTs (RFC 7519): signed, verified, and looked into before that."""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from umec_core.jose.errors import JwkInvalid, JwtAlgorithm, JwtHeader, JwtMalformed, JwtSignature, JwtType
from umec_core.jose.jwk import ALGORITHM, KeySet, thumbprint
from umec_core.jose.text import base64url_decode, base64url_encode, strict_json

__all__ = ["peek_claims", "peek_header", "peek_kid", "sign_jwt", "verify_jwt"]

MAX_JWT: Final = 128 * 1024
"""Characters; a standing statement of some hundred nodes is the longest token that we make (the feed pages beyond)."""

MAX_HEADER: Final = 2048
"""Characters; a header that carries a key and its use has about 400."""

HEADERS: Final = frozenset({"alg", "typ", "kid"})
"""The header members of our tokens; a proof also carries `jwk`. `crit`, `jku`, `x5u` and `x5c` would change how the
signature is judged, so they are refused."""

_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_encoder: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_ES256: Final = ECDSA(SHA256())


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
    if not isinstance(key.curve, SECP256R1):
        raise JwkInvalid(f"a key on {key.curve.name}, expected P-256")
    text = f"{_part(header)}.{_part(claims)}"
    r, s = decode_dss_signature(key.sign(text.encode(), _ES256))
    return f"{text}.{base64url_encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _part(value: Mapping[str, Any]) -> str:
    return base64url_encode(_encoder.encode(value).encode())


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
    return strict_json(base64url_decode(_parts(token)[part]))


def _parts(token: str) -> list[str]:
    if len(token) > MAX_JWT:
        raise JwtMalformed(f"{len(token)} characters, at most {MAX_JWT} are read")
    if _COMPACT.fullmatch(token) is None:
        raise JwtMalformed("not three parts of base64url without padding")
    return token.split(".")


def verify_jwt(
    token: str, keys: KeySet, *, typ: str | Collection[str | None], headers: Collection[str] = HEADERS
) -> Mapping[str, Any]:
    """Return the claims of a token that a key of the set signed; raises a `JwtInvalid`.

    1. It is a compact JWS of bounded size. 2. Its header has only members that we know. 3. Its algorithm is ES256.
    4. Its kind is the one asked for (`typ`; None in a collection stands for "not given"). 5. It names a key of the set.
    6. The signature matches. 7. The claims are one JSON object. What the claims say is for the caller to judge.
    """
    head, claims, signature = _parts(token)  # 1
    if len(head) > MAX_HEADER:
        raise JwtMalformed(f"a header of {len(head)} characters, at most {MAX_HEADER} are read")
    header = strict_json(base64url_decode(head))
    _check_header(header, typ, headers)  # 2, 3, 4
    key = keys.find(header.get("kid"))  # 5
    _check_signature(key, f"{head}.{claims}", signature)  # 6
    return strict_json(base64url_decode(claims))  # 7


def _check_signature(key: EllipticCurvePublicKey, text: str, signature: str) -> None:
    """Check an ES256 signature (RFC 7518, section 3.4): R and S of 32 bytes each."""
    try:
        raw = base64url_decode(signature)
        if len(raw) != 64:
            raise JwtSignature("the signature has not 64 bytes")
        r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
        key.verify(encode_dss_signature(r, s), text.encode(), _ES256)
    except (JwtMalformed, InvalidSignature) as error:
        raise JwtSignature("the signature does not match") from error


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
