"""The signed decision that an instance may run, verified once more right before its start.

1. The platform signed it, as a decision. 2. It has exactly the members of one, and the platform issued it. 3. Its time
is now. 4. It is for this node, 5. for this instance and tenant, 6. for this image.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from umec_core.jose import JwtExpired, JwtInvalid, KeySet, check_times, verify_jwt
from umec_platform.netd.errors import (
    DecisionDigest,
    DecisionExpired,
    DecisionInstance,
    DecisionNode,
    DecisionSignature,
)
from umec_platform.netd.messages import InstanceSpec
from umec_platform.netd.names import Digest, Identifier, Repository

__all__ = ["DECISION_TYPE", "Admitted", "verify_decision"]

DECISION_TYPE: Final = "umec-admission+jwt"

LONGEST: Final = timedelta(hours=1)
"""A decision is made for one start; an hour covers the slowest pull of an image."""


class _Claims(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    iss: str = Field(min_length=1, max_length=512)
    iat: float
    exp: float
    tenant: Identifier
    node: Identifier
    instance: Identifier
    appd_sha256: str = Field(max_length=71)
    repository: Repository
    digest: Digest
    policy_sha256: str = Field(max_length=71)
    policies: list[str] = Field(min_length=1, max_length=1000)
    jti: str | None = Field(default=None, max_length=512)


@dataclass(frozen=True, slots=True)
class Admitted:
    """What may run: only `verify_decision` makes one."""

    instance: str
    tenant: str
    repository: str
    digest: str
    policies: tuple[str, ...]


def verify_decision(spec: InstanceSpec, *, keys: KeySet, issuer: str, node: str, now: datetime) -> Admitted:
    """Return what the decision of a specification admits; raises a `Decision…` error."""
    try:
        raw = verify_jwt(spec.decision, keys, typ=DECISION_TYPE)  # 1
        claims = _Claims.model_validate(raw)  # 2
    except JwtInvalid as error:
        raise DecisionSignature(f"the decision is not the platform's: {error.detail}") from error
    except ValidationError as error:
        raise DecisionSignature(f"the decision has {error.error_count()} members of another shape") from error
    if claims.iss != issuer:
        raise DecisionSignature("the decision is of another issuer")
    try:
        check_times(raw, now, longest=LONGEST)  # 3
    except JwtExpired as error:
        raise DecisionExpired(f"the decision about {claims.instance}: {error.detail}") from error
    except JwtInvalid as error:
        raise DecisionSignature(f"the decision has no proper times: {error.detail}") from error
    if claims.node != node:  # 4
        raise DecisionNode(f"the decision is for node {claims.node}, this is {node}")
    if claims.instance != spec.instance or claims.tenant != spec.tenant:  # 5
        raise DecisionInstance(f"the decision is for instance {claims.instance} of tenant {claims.tenant}")
    if claims.digest != spec.digest or claims.repository != spec.repository:  # 6
        raise DecisionDigest(f"the decision is about {claims.repository}@{claims.digest}")
    return Admitted(claims.instance, claims.tenant, claims.repository, claims.digest, tuple(claims.policies))
