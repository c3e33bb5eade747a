"""Sign and verify summaries: DSSE under the promotion key of the images service."""

from collections.abc import Sequence
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

from umec_core import dsse
from umec_images.errors import (
    DigestMismatch,
    ImageError,
    PromotionMissing,
    PromotionSignature,
    PromotionStage,
    StatementInvalid,
)
from umec_images.promotion.evidence import Attached, Attachment
from umec_images.statements import Summary, encode_statement, encode_summary, parse_statement, parse_summary
from umec_images.verify.times import SKEW

__all__ = ["find_summary", "sign_summary", "verified_envelopes", "verify_summary"]


def sign_summary(summary: Summary, key: EllipticCurvePrivateKey) -> bytes:
    """Return a summary as a DSSE envelope."""
    return dsse.sign(encode_statement(encode_summary(summary)), dsse.IN_TOTO, key)


def verify_summary(
    envelope: bytes, *, keys: Sequence[EllipticCurvePublicKey], repository: str, digest: str, now: datetime
) -> Summary:
    """Return the summary in an envelope that a promotion key signed about this digest in this repository.

    Raises PromotionSignature, StatementInvalid or DigestMismatch.
    """
    try:
        payload = dsse.verify(envelope, keys=keys, payload_type=dsse.IN_TOTO)
    except dsse.DsseError as error:
        raise PromotionSignature(f"a summary is not signed by a promotion key: {error.detail}") from error
    summary = parse_summary(parse_statement(payload))
    if (summary.repository, summary.digest) != (repository, digest):
        raise DigestMismatch(f"the summary is about {summary.repository}@{summary.digest}")
    if summary.verified_at > now + SKEW:
        raise StatementInvalid("the summary was made in the future")
    return summary


def verified_envelopes(
    attached: Attached, keys: Sequence[EllipticCurvePublicKey], now: datetime
) -> tuple[list[tuple[Attachment, Summary]], list[ImageError]]:
    """Return the envelopes with good summaries among what is attached, and why the others are not."""
    good: list[tuple[Attachment, Summary]] = []
    refusals: list[ImageError] = []
    repository, digest = attached.repository, attached.digest
    for envelope in attached.envelopes:
        try:
            summary = verify_summary(envelope.content, keys=keys, repository=repository, digest=digest, now=now)
            good.append((envelope, summary))
        except ImageError as refusal:
            refusals.append(refusal)
    return good, refusals


def find_summary(attached: Attached, stage: str, *, keys: Sequence[EllipticCurvePublicKey], now: datetime) -> Summary:
    """Return the earliest summary that promotes a digest to exactly this stage.

    Raises PromotionMissing, PromotionSignature or PromotionStage.
    """
    found, refusals = verified_envelopes(attached, keys, now)
    good = [summary for _, summary in found]
    fitting = [summary for summary in good if summary.stage == stage]
    if fitting:
        return min(fitting, key=lambda summary: summary.verified_at)
    if good:
        stages = ", ".join(sorted({summary.stage for summary in good}))
        raise PromotionStage(f"{attached.digest} was promoted to {stages}, and is wanted for {stage}")
    unsigned = [refusal for refusal in refusals if isinstance(refusal, PromotionSignature)]
    if unsigned:
        raise unsigned[0]
    raise PromotionMissing(
        f"{attached.digest} was never promoted", advice="`umec image promote` has somebody else approve it"
    )
