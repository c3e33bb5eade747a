"""Bodies about rounds; binary is standard base64."""

from typing import Annotated, Any

from pydantic import Field

from umec_attest.service.wire import Blob, Id, LargeBlob, Sha256, WireModel

__all__ = ["ChallengeRequest", "EvidenceRequest"]


class ChallengeRequest(WireModel):
    """POST /attest/v1/challenges."""

    node: Id


class EvidenceRequest(WireModel):
    """POST /attest/v1/evidence: TPMS_ATTEST, TPMT_SIGNATURE, {"sha256": {"0": hex, …}}, the boot log or its hash.

    `ima`: the list of runtime measurements in binary form, from entry `ima_from` on, where the challenge asks for it;
    `ima_more`: as much of it as fits, and the rest follows at the next challenge. The same of the log of starts.
    """

    node: Id
    challenge: str
    quote: Blob
    signature: Blob
    pcrs: dict[str, Any]
    boot_log: LargeBlob | None = None
    boot_log_sha256: Sha256 | None = None
    ima: LargeBlob | None = None
    ima_from: Annotated[int, Field(ge=0, le=2**31)] | None = None
    ima_more: bool = False
    starts: LargeBlob | None = None
    starts_from: Annotated[int, Field(ge=0, le=2**31)] | None = None
    starts_more: bool = False
