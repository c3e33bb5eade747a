"""Attestation-based client authentication: an EAR of our verifier names the node key, the node key proves itself.

The EAR (draft-ietf-rats-ear) is the Client Attestation of draft-ietf-oauth-attestation-based-client-auth: the verifier
is the Client Attester, the node is the client.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from umec_core.jose import (
    SKEW,
    JwkInvalid,
    JwtClaim,
    JwtExpired,
    JwtInvalid,
    KeySet,
    check_times,
    claim_text,
    claim_time,
    public_key,
    verify_jwt,
)
from umec_core.standing import StandingView
from umec_identity.authentication.challenge import Challenges
from umec_identity.errors import AttestationInvalid, AttestationVerdict, PossessionInvalid
from umec_identity.rows import Used

__all__ = [
    "ATTESTATION_TYPE",
    "POSSESSION_TYPE",
    "AttestedNode",
    "VerifiedEar",
    "VerifiedPossession",
    "check_standing",
    "verify_ear",
    "verify_possession",
]

ATTESTATION_TYPE: Final = "oauth-client-attestation+jwt"
POSSESSION_TYPE: Final = "oauth-client-attestation-pop+jwt"

EAR_PROFILE: Final = "tag:github.com,2023:veraison/ear"

MAX_EAR_LIFE: Final = timedelta(minutes=10)
"""An EAR is good for the certificate of a few rounds, no longer."""

POSSESSION_LIFE: Final = timedelta(seconds=60)
"""How long after its `iat` a proof of possession is accepted."""

GOOD: Final = frozenset({"affirming", "warning"})
"""The verdicts (AR4SI tiers) that a node gets credentials for; what a warning may, the policies say."""

NODE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class _Umec(BaseModel):
    """The `umec` claim of an EAR: what the verdict rests on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: StrictStr | None
    standing: StrictStr
    generation: StrictInt = Field(ge=0)
    evidence_sha256: StrictStr
    policy_sha256: StrictStr
    reference_sha256: StrictStr
    reference_version: StrictInt


@dataclass(frozen=True, slots=True)
class VerifiedEar:
    """What our verifier said of a node, in a generation that may have passed; only `verify_ear` makes one."""

    node: str
    tenant: str | None
    generation: int
    key: EllipticCurvePublicKey
    ear_id: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class AttestedNode:
    """A node that stands, in the generation of its EAR; only `check_standing` makes one."""

    node: str
    tenant: str | None
    generation: int
    standing: str
    key: EllipticCurvePublicKey
    ear_id: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class VerifiedPossession:
    """A proof that whoever asks holds the node key; `used` is used up by the request."""

    claims: Mapping[str, Any]
    used: tuple[Used, ...]


def verify_ear(text: str, keys: KeySet, *, verifier: str, audience: str, now: datetime) -> VerifiedEar:
    """Return what an EAR says; raises `AttestationInvalid` or `AttestationVerdict`.

    1. A key of the verifier signed it as a client attestation. 2. Our verifier issued it, to us alone. 3. It is valid
    now, for ten minutes at most. 4. Its verdict on the node is good. 5. It names the node and one P-256 key.
    """
    try:
        claims = verify_jwt(text, keys, typ=ATTESTATION_TYPE)  # 1
        if claim_text(claims, "iss") != verifier or claims.get("aud") != audience:  # 2
            raise AttestationInvalid(f"the attestation result is not of {verifier} for {audience} alone")
        check_times(claims, now, longest=MAX_EAR_LIFE)  # 3
        _check_verdict(claims)  # 4
        node, umec = _node(claims), _Umec.model_validate(claims.get("umec"))  # 5
        key = _confirmed_key(claims)
        ear_id = claim_text(claims, "jti")
    except (JwtInvalid, JwkInvalid) as error:
        raise AttestationInvalid(f"the attestation result is not valid: {error.detail}") from error
    except ValidationError as error:
        raise AttestationInvalid("the attestation result does not say what it rests on") from error
    return VerifiedEar(
        node=node,
        tenant=umec.tenant,
        generation=umec.generation,
        key=key,
        ear_id=ear_id,
        expires=datetime.fromtimestamp(claims["exp"], UTC),
    )


def check_standing(ear: VerifiedEar, standings: StandingView, now: datetime) -> AttestedNode:
    """Return the node if it stands in the generation of the EAR: one from before a fall is worth nothing after it.

    Raises `StandingStale` or `StandingFallen`.
    """
    entry = standings.check(ear.node, ear.generation, now)
    return AttestedNode(
        node=ear.node,
        tenant=ear.tenant,
        generation=ear.generation,
        standing=entry.standing.value,
        key=ear.key,
        ear_id=ear.ear_id,
        expires=ear.expires,
    )


def _node(claims: Mapping[str, Any]) -> str:
    node = claim_text(claims, "sub", longest=63)
    if NODE.fullmatch(node) is None:
        raise JwtClaim("sub is not the identifier of a node")
    return node


def _check_verdict(claims: Mapping[str, Any]) -> None:
    if claims.get("eat_profile") != EAR_PROFILE:
        raise JwtClaim(f"eat_profile is not {EAR_PROFILE}")
    parts = claims.get("submods")
    appraisal = parts.get("node") if isinstance(parts, Mapping) and set(parts) == {"node"} else None
    if not isinstance(appraisal, Mapping):
        raise JwtClaim("submods is not the appraisal of a node, and of nothing else")
    status = appraisal.get("ear.status")
    if not isinstance(status, str) or status not in GOOD:
        raise AttestationVerdict(
            "the verdict on the node is not good", advice="`umec node explain` says what the verifier found"
        )


def _confirmed_key(claims: Mapping[str, Any]) -> EllipticCurvePublicKey:
    confirmation = claims.get("cnf")
    jwk = confirmation.get("jwk") if isinstance(confirmation, Mapping) and set(confirmation) == {"jwk"} else None
    if not isinstance(jwk, Mapping):
        raise JwtClaim("cnf is not one jwk")
    return public_key(jwk)


def verify_possession(
    text: str,
    node: AttestedNode,
    *,
    audience: str,
    challenges: Challenges,
    now: datetime,
    csr_sha256: str | None = None,
) -> VerifiedPossession:
    """Return the proof that the node key was used for this request; raises `PossessionInvalid` or `ChallengeInvalid`.

    1. The key of the EAR signed it as a proof. 2. The node issued it, to us alone. 3. It was made within the last
    minute. 4. It answers a challenge of ours. 5. Where a certificate is asked for, it vouches for that request.
    """
    try:
        claims = verify_jwt(text, KeySet([node.key]), typ=POSSESSION_TYPE)  # 1
        if claim_text(claims, "iss") != node.node or claims.get("sub", node.node) != node.node:  # 2
            raise PossessionInvalid("the proof of possession is of another node")
        if claims.get("aud") != audience:
            raise PossessionInvalid(f"the proof of possession is not for {audience} alone")
        jti = claim_text(claims, "jti", longest=128)
        issued = _check_age(claims, now)  # 3
        challenge = challenges.verify(claim_text(claims, "challenge"), now)  # 4
        _check_csr(claims, csr_sha256)  # 5
    except JwtInvalid as error:
        raise PossessionInvalid(f"the proof of possession is not valid: {error.detail}") from error
    spent = Used("possession", node.node, jti, until=issued + POSSESSION_LIFE + SKEW)
    return VerifiedPossession(claims=claims, used=(challenge, spent))


def _check_age(claims: Mapping[str, Any], now: datetime) -> datetime:
    issued = claim_time(claims, "iat")
    if not (now - POSSESSION_LIFE).timestamp() <= issued <= (now + SKEW).timestamp():
        raise JwtExpired("it was not made within the last minute")
    if "exp" in claims and claim_time(claims, "exp") <= now.timestamp():
        raise JwtExpired("its time is over")
    if "nbf" in claims and claim_time(claims, "nbf") > (now + SKEW).timestamp():
        raise JwtExpired("its time has not come")
    return datetime.fromtimestamp(issued, UTC)


def _check_csr(claims: Mapping[str, Any], csr_sha256: str | None) -> None:
    if csr_sha256 is None:
        if "csr_sha256" in claims:
            raise PossessionInvalid("the proof of possession is for a certificate request")
    elif not hmac.compare_digest(claim_text(claims, "csr_sha256"), csr_sha256):
        raise PossessionInvalid("the proof of possession is for another certificate request")
