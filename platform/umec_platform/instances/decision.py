"""The admission decision: the platform's signed word that an image may run for an instance on a node, now. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from umec_core.jose import sign_jwt, thumbprint
from umec_platform.instances.ports import Admitted

__all__ = ["DECISION_LIFE", "DECISION_TYPE", "Decision", "sign_decision"]

DECISION_TYPE: Final = "umec-admission+jwt"
DECISION_LIFE: Final = timedelta(minutes=2)
"""The host starts the instance right after the decision; a large image on a small node takes a minute to unpack."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is decided."""

    issuer: str
    tenant: str
    node: str
    instance: str
    appd_sha256: str
    admitted: Admitted


def sign_decision(decision: Decision, key: EllipticCurvePrivateKey, now: datetime) -> str:
    """Return the decision as a JWS (ES256) that its host checks again right before the start."""
    claims = {
        "iss": decision.issuer,
        "iat": int(now.timestamp()),
        "exp": int((now + DECISION_LIFE).timestamp()),
        "tenant": decision.tenant,
        "node": decision.node,
        "instance": decision.instance,
        "appd_sha256": decision.appd_sha256,
        "repository": decision.admitted.repository,
        "digest": decision.admitted.digest,
        "policy_sha256": decision.admitted.policy_sha256,
        "policies": list(decision.admitted.policies),
    }
    return sign_jwt(claims, key, typ=DECISION_TYPE, kid=thumbprint(key))
