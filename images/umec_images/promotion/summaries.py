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
from umec_images.promotion.evidence import Attached
from umec_images.statements import Summary, encode_statement, encode_summary, parse_statement, parse_summary
from umec_images.verify.times import SKEW

__all__ = ["find_summary", "sign_summary", "verified_summaries", "verify_summary"]


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


def verified_summaries(
    attached: Attached, keys: Sequence[EllipticCurvePublicKey], now: datetime
) -> tuple[list[Summary], list[ImageError]]:
    """Return the good summaries among what is attached, and why the others are not."""
    good: list[Summary] = []
    refusals: list[ImageError] = []
    for envelope in attached.envelopes:
        try:
            good.append(
                verify_summary(
                    envelope.content, keys=keys, repository=attached.repository, digest=attached.digest, now=now
                )
            )
        except ImageError as refusal:
            refusals.append(refusal)
    return good, refusals


def find_summary(attached: Attached, stage: str, *, keys: Sequence[EllipticCurvePublicKey], now: datetime) -> Summary:
    """Return the earliest summary that promotes a digest to exactly this stage.

    Raises PromotionMissing, PromotionSignature or PromotionStage.
    """
    good, refusals = verified_summaries(attached, keys, now)
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
