"""Attestation results: the claims of an EAR (draft-ietf-rats-ear) as µMEC issues it.

The token is also the node's OAuth client attestation, so it binds the node key (`cnf`) and names its audience. Profile
and names are those of 2023, which the libraries that read EARs know; later drafts rename claims and number the profile.
"""

import base64
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from umec_attest.appraisal import Appraisal
from umec_attest.errors import AttestError
from umec_attest.reference import ReferenceSet

__all__ = ["EAR_PROFILE", "EAR_TYPE", "MAX_LIFETIME", "EarInvalid", "ear_claims"]

EAR_PROFILE: Final = "tag:github.com,2023:veraison/ear"
EAR_TYPE: Final = "oauth-client-attestation+jwt"
"""`typ` of the JWT."""
MAX_LIFETIME: Final = timedelta(minutes=10)
"""A result outlives a few rounds, and no more."""

_NONCE_SIZES: Final = range(8, 65)
"""Bytes of an eat_nonce (RFC 9711, 4.1)."""
_VERIFIER: Final = {"build": "umec-attest", "developer": "urn:umec"}


class EarInvalid(AttestError):
    """A result that must not be issued."""

    code = "ear-invalid"


def ear_claims(
    *,
    issuer: str,
    audience: str,
    node: str,
    tenant: str | None,
    jti: str,
    nonce: bytes,
    node_key_jwk: Mapping[str, str],
    appraisal: Appraisal,
    reference: ReferenceSet,
    standing: str,
    generation: int,
    evidence_sha256: str,
    now: datetime,
    lifetime: timedelta = MAX_LIFETIME,
) -> dict[str, Any]:
    """Return the claims of the EAR for one appraisal; times in whole seconds since 1970.

    `nonce` is the challenge's, `evidence_sha256` (hex) covers what the node sent. Errors: `EarInvalid` for an empty
    issuer, audience, node or jti, a nonce that is none, a lifetime beyond `MAX_LIFETIME`, or a key that is not public
    P-256.
    """
    if not all((issuer, audience, node, jti)):
        raise EarInvalid("issuer, audience, node and jti must not be empty")
    if len(nonce) not in _NONCE_SIZES:
        raise EarInvalid("a nonce has 8 to 64 bytes")
    if not timedelta(0) < lifetime <= MAX_LIFETIME:
        raise EarInvalid(f"a result lives at most {MAX_LIFETIME}")
    if set(node_key_jwk) - {"kid", "alg", "use"} != {"kty", "crv", "x", "y"} or node_key_jwk["crv"] != "P-256":
        raise EarInvalid("the node key must be a public P-256 JWK")
    issued = int(now.timestamp())
    return {
        "iss": issuer,
        "sub": node,
        "aud": audience,
        "iat": issued,
        "exp": issued + int(lifetime.total_seconds()),
        "jti": jti,
        "eat_profile": EAR_PROFILE,
        "eat_nonce": base64.urlsafe_b64encode(nonce).rstrip(b"=").decode(),
        "ear.verifier-id": dict(_VERIFIER),
        "submods": {
            "node": {
                "ear.status": appraisal.verdict.value,
                "ear.trustworthiness-vector": dict(appraisal.trust_vector),
                "ear.appraisal-policy-id": f"urn:umec:policy:{appraisal.policy_digest}",
            }
        },
        "cnf": {"jwk": {name: node_key_jwk[name] for name in ("kty", "crv", "x", "y")}},
        "umec": {
            "tenant": tenant,
            "standing": standing,
            "generation": generation,
            "evidence_sha256": evidence_sha256,
            "policy_sha256": appraisal.policy_digest,
            "reference_sha256": reference.sha256,
            "reference_version": reference.version,
        },
    }
