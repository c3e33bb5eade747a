"""Promote a digest to a stage: verify, decide by policy, sign a summary, attach it.

1. the stage is one of ours, and the digest is not there yet
2. a trusted builder's provenance proves the digest
3. the policies allow it: no builder approves, staging comes before production, the repository is the approver's, no
   later version was promoted there unless an operator goes back on purpose; and no operator denied digest or version
4. the approval is in the audit log, and its version in the history of the stage
5. a summary for exactly this digest, repository and stage is signed and attached

A minimum that was wished for is raised afterwards. Where that was cut off, the same wish again raises it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

from umec_core.clock import Clock
from umec_images.errors import PromotionDenied, PromotionExists, PromotionStage, VersionMissing
from umec_images.oci.reference import check_digest, check_repository, tenant_of
from umec_images.oci.version import Version
from umec_images.promotion.denylist import DenyList
from umec_images.promotion.evidence import ENVELOPE, Attachment, Builders, Registry, fetch_attached, prove
from umec_images.promotion.history import Approval, History
from umec_images.promotion.question import Approver, Question, Wish
from umec_images.promotion.summaries import sign_summary, verified_envelopes
from umec_images.statements import Summary
from umec_images.statements.summary import STAGES
from umec_images.verify import BundleVerifier
from umec_policies import PolicyDenied, PolicySet

__all__ = ["Promoted", "Promoter"]


@dataclass(frozen=True, slots=True)
class Promoted:
    """A promotion that was made: the digest of the attached summary, and the policies that allowed it."""

    vsa_digest: str
    summary: Summary
    policies: tuple[str, ...]
    version: Version | None
    rolled_back: bool
    """Whether a later version was promoted there before."""
    before: bool
    """Whether it was made before, and only its minimum was missing."""


class Promoter:
    """Makes promotions, one at a time: `public_key` verifies their summaries."""

    def __init__(
        self,
        *,
        name: str,
        registry: Registry,
        verifier: BundleVerifier,
        builders: Builders,
        key: EllipticCurvePrivateKey,
        policies: PolicySet,
        history: History,
        deny_list: Callable[[], DenyList],
        clock: Clock,
    ) -> None:
        """`name` is the URL of the images service, which the summaries name as their verifier."""
        self._name = name
        self._registry = registry
        self.verifier = verifier
        self.builders = builders
        self._key = key
        self._policies = policies
        self._history = history
        self._clock = clock
        self._deny_list = deny_list
        self._turn = asyncio.Lock()

    @property
    def public_key(self) -> EllipticCurvePublicKey:
        """The promotion key."""
        return self._key.public_key()

    async def promote(self, approver: Approver, wish: Wish) -> Promoted:
        """Promote a digest to a stage.

        Raises PromotionDenied, SelfApproved, PromotionRollback, ImageDenied or ImageRollback (naming the policies),
        PromotionStage, PromotionExists, VersionMissing, and why the image is not proved.
        """
        check_repository(wish.repository)
        check_digest(wish.digest)
        if wish.stage not in STAGES:
            raise PromotionStage(f"there is no stage {wish.stage!r}; a digest passes {' and '.join(STAGES)}")
        if wish.minimum and approver.tenant is not None:
            raise PromotionDenied("only an operator raises a minimum", policies=(), advice="Promote without it.")
        if wish.minimum and wish.stage != STAGES[-1]:
            raise PromotionStage(
                f"a minimum is raised with the promotion to {STAGES[-1]}: what runs there must not stop"
            )
        async with self._turn:
            return await self._promote(approver, wish)

    async def _promote(self, approver: Approver, wish: Wish) -> Promoted:
        now, repository = self._clock(), wish.repository
        attached = await fetch_attached(self._registry, repository, wish.digest)
        made, _ = verified_envelopes(attached, [self.public_key], now)
        expected = self.builders(tenant_of(repository))
        proof = await asyncio.to_thread(prove, attached, self.verifier, expected, now)  # 2
        highest = await self._history.highest(repository, wish.stage)
        summaries = [summary for _, summary in made]
        question = Question(approver, wish, attached, proof, summaries, highest, self._deny_list(), now)
        allowed = self._decide(question)  # 3
        if attached.version is None and wish.minimum:
            raise VersionMissing(f"{wish.digest} states no semantic version that could be a minimum")
        for present, summary in made:
            if summary.stage == wish.stage:  # 1, after 3: strangers learn nothing
                return await self._again(present, summary, question, allowed)
        summary = Summary(
            repository=repository,
            digest=wish.digest,
            stage=wish.stage,
            verifier=self._name,
            verified_at=now,
            policy_digest=self._policies.digest,
            inputs=proof.bundles,
            approver=approver.identity,
            builder=proof.signer.subject,
        )
        why = wish.rollback if question.rollback else None
        await self._history.approved(Approval(approver.client, summary, attached.version, why))  # 4
        envelope = sign_summary(summary, self._key)  # 5
        attachment = await self._registry.attach(repository, wish.digest, envelope, ENVELOPE)
        return Promoted(attachment, summary, allowed, attached.version, question.rollback, before=False)

    async def _again(
        self, envelope: Attachment, summary: Summary, question: Question, allowed: tuple[str, ...]
    ) -> Promoted:
        """Return a promotion that was made before, if the minimum that is wished for is missing."""
        wish, version = question.wish, question.attached.version
        if not wish.minimum or question.denied.minimums.get(wish.repository) == version:
            raise PromotionExists(f"{wish.digest} was promoted to {wish.stage} before")
        # What is attached twice is attached once, and this says its name.
        attachment = await self._registry.attach(wish.repository, wish.digest, envelope.content, ENVELOPE)
        return Promoted(attachment, summary, allowed, version, question.rollback, before=True)

    def _decide(self, question: Question) -> tuple[str, ...]:
        try:
            allowed = self._policies.require(question.request()).policies
        except PolicyDenied as refused:
            question.refuse(refused)
        attached = question.attached
        question.denied.require(attached.repository, attached.digest, attached.version)
        return allowed
