"""Proofs signed by the node key in the TPM: the node's half of OAuth attestation-based client authentication."""

import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from umec_core.jose import ALGORITHM, base64url_encode

__all__ = ["POP_TYPE", "SignDigest", "pop_claims", "signed_jwt"]

POP_TYPE: Final = "oauth-client-attestation-pop+jwt"

SignDigest = Callable[[bytes], Awaitable[bytes]]
"""Signs a SHA-256 digest with ES256; returns r||s."""


async def signed_jwt(claims: Mapping[str, Any], *, typ: str, sign: SignDigest) -> str:
    """Return a compact JWS (RFC 7515, ES256) whose key is elsewhere."""
    parts = [_part({"alg": ALGORITHM, "typ": typ}), _part(claims)]
    message = ".".join(parts).encode()
    return ".".join([*parts, base64url_encode(await sign(hashlib.sha256(message).digest()))])


def pop_claims(
    *, node: str, audience: str, challenge: str, now: datetime, csr: x509.CertificateSigningRequest | None = None
) -> dict[str, Any]:
    """Return the claims of a proof of possession; with `csr`, it is good for that one certificate request only."""
    claims: dict[str, Any] = {
        "iss": node,
        "aud": audience,
        "iat": int(now.timestamp()),
        "jti": secrets.token_urlsafe(18),
        "challenge": challenge,
    }
    if csr is not None:
        claims["csr_sha256"] = hashlib.sha256(csr.public_bytes(Encoding.DER)).hexdigest()
    return claims


def _part(value: Mapping[str, Any]) -> str:
    return base64url_encode(json.dumps(value, separators=(",", ":"), allow_nan=False).encode())
