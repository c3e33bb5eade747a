"""Verification summaries (https://slsa.dev/verification_summary/v1): a digest was verified, and promoted to one stage.

`resourceUri` names the stage, because a summary that does not can be presented where it was not meant for: the
dev/prod confusion attack of the specification. Approver and builder are extension members with URIs as names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictStr, ValidationError

from umec_images.errors import StatementInvalid
from umec_images.statements.intoto import Statement, Subject

__all__ = ["STAGES", "SUMMARY", "Stage", "Summary", "encode_summary", "parse_summary", "stage_uri"]

SUMMARY: Final = "https://slsa.dev/verification_summary/v1"
SLSA_VERSION: Final = "1.1"
STAGES: Final = ("staging", "production")
"""In the order in which a digest passes them."""
Stage = Literal["staging", "production"]
HEX: Final = r"^[0-9a-f]{64}$"
PREFIX: Final = "sha256:"
STAGE_PREFIX: Final = "umec:stage/"


@dataclass(frozen=True, slots=True)
class Summary:
    """`digest` (`sha256:<hex>`) in `repository` was verified by `verifier` under a policy, and approved for `stage`."""

    repository: str
    digest: str
    stage: str
    verifier: str
    verified_at: datetime
    policy_digest: str
    """SHA-256, hex."""
    inputs: tuple[str, ...]
    """SHA-256 (hex) of the bundles that were verified; at least one."""
    approver: str
    builder: str


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Digest(_Model):
    sha256: StrictStr = Field(pattern=HEX)


class _Attestation(_Model):
    digest: _Digest


class _Policy(_Model):
    uri: StrictStr
    digest: _Digest


class _Verifier(_Model):
    id: StrictStr = Field(min_length=1)


class _Predicate(_Model):
    verifier: _Verifier
    timeVerified: AwareDatetime  # noqa: N815 - the name in the specification
    resourceUri: StrictStr = Field(pattern=r"^umec:stage/[a-z][a-z0-9-]{0,62}$")  # noqa: N815
    policy: _Policy
    inputAttestations: tuple[_Attestation, ...] = Field(min_length=1, max_length=64)  # noqa: N815
    verificationResult: Literal["PASSED"]  # noqa: N815
    verifiedLevels: tuple[StrictStr, ...]  # noqa: N815
    slsaVersion: StrictStr  # noqa: N815
    approver: StrictStr = Field(alias="urn:umec:approver", min_length=1)
    builder: StrictStr = Field(alias="urn:umec:builder", min_length=1)


def stage_uri(stage: str) -> str:
    """Return the resourceUri of a stage."""
    return f"{STAGE_PREFIX}{stage}"


def encode_summary(summary: Summary) -> Statement:
    """Return the statement that says what a summary says."""
    predicate: Mapping[str, Any] = {
        "verifier": {"id": summary.verifier},
        "timeVerified": summary.verified_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "resourceUri": stage_uri(summary.stage),
        "policy": {"uri": "urn:umec:policy:promotion", "digest": {"sha256": summary.policy_digest}},
        "inputAttestations": [{"digest": {"sha256": digest}} for digest in summary.inputs],
        "verificationResult": "PASSED",
        "verifiedLevels": ["SLSA_BUILD_LEVEL_1"],
        "slsaVersion": SLSA_VERSION,
        "urn:umec:approver": summary.approver,
        "urn:umec:builder": summary.builder,
    }
    subject = Subject(summary.repository, {"sha256": summary.digest.removeprefix(PREFIX)})
    return Statement((subject,), SUMMARY, predicate)


def parse_summary(statement: Statement) -> Summary:
    """Return the summary in a statement about exactly one subject; raises StatementInvalid.

    These summaries are our own: an unknown member is refused.
    """
    if statement.predicate_type != SUMMARY:
        raise StatementInvalid(f"the predicate is {statement.predicate_type[:100]!r}, expected {SUMMARY}")
    if len(statement.subjects) != 1 or "sha256" not in statement.subjects[0].digests or not statement.subjects[0].name:
        raise StatementInvalid("a summary is about exactly one repository and sha256 digest")
    try:
        predicate = _Predicate.model_validate(statement.predicate)
    except ValidationError as error:
        raise StatementInvalid(f"the summary is malformed: {error.errors()[0]['msg']}") from error
    return Summary(
        repository=statement.subjects[0].name,
        digest=PREFIX + statement.subjects[0].digests["sha256"],
        stage=predicate.resourceUri.removeprefix(STAGE_PREFIX),
        verifier=predicate.verifier.id,
        verified_at=predicate.timeVerified.astimezone(UTC),
        policy_digest=predicate.policy.digest.sha256,
        inputs=tuple(each.digest.sha256 for each in predicate.inputAttestations),
        approver=predicate.approver,
        builder=predicate.builder,
    )
