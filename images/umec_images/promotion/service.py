"""Promote a digest to a stage: verify, decide by policy, sign a summary, attach it.

1. the stage is one of ours, and the digest is not there yet
2. a trusted builder's provenance proves the digest
3. the policies allow it: approver is not builder, staging comes before production, the repository is the approver's;
   and no operator denied the digest
4. a summary for exactly this digest, repository and stage is signed and attached
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

from umec_core.clock import Clock
from umec_images.errors import ImageDenied, PromotionDenied, PromotionExists, PromotionStage
from umec_images.oci.reference import check_digest, check_repository, tenant_of
from umec_images.promotion.evidence import (
    ENVELOPE,
    Attached,
    Builders,
    DenyList,
    Proof,
    Registry,
    fetch_attached,
    prove,
    require_not_denied,
)
from umec_images.promotion.summaries import sign_summary, verified_summaries
from umec_images.statements import Summary
from umec_images.statements.summary import STAGES
from umec_images.verify import BundleVerifier
from umec_policies import Entity, PolicyDenied, PolicySet, Request

__all__ = ["Approver", "Promoted", "Promoter"]

ISSUER: Final = "umec-images"
"""Who establishes the facts of a promotion."""
MINUTE: Final = 60


@dataclass(frozen=True, slots=True)
class Approver:
    """Who approves: `identity` in the form in which builders' identities are written, `tenant` None for an operator."""

    identity: str
    tenant: str | None


@dataclass(frozen=True, slots=True)
class Promoted:
    """A promotion that was made: the digest of the attached summary, and the policies that allowed it."""

    vsa_digest: str
    summary: Summary
    policies: tuple[str, ...]


def _nothing_denied() -> DenyList:
    return DenyList()


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
        clock: Clock,
        deny_list: Callable[[], DenyList] = _nothing_denied,
    ) -> None:
        """`name` is the URL of the images service, which the summaries name as their verifier."""
        self._name = name
        self._registry = registry
        self._verifier = verifier
        self._builders = builders
        self._key = key
        self._policies = policies
        self._clock = clock
        self._deny_list = deny_list
        self._turn = asyncio.Lock()

    @property
    def public_key(self) -> EllipticCurvePublicKey:
        """The promotion key."""
        return self._key.public_key()

    async def promote(self, approver: Approver, *, repository: str, digest: str, stage: str) -> Promoted:
        """Promote `digest` in `repository` to `stage`.

        Raises PromotionDenied or ImageDenied (naming the policies), PromotionStage, PromotionExists, and why the image
        is not proved.
        """
        check_repository(repository)
        check_digest(digest)
        if stage not in STAGES:
            raise PromotionStage(f"there is no stage {stage!r}; a digest passes {' and '.join(STAGES)}")
        async with self._turn:
            return await self._promote(approver, repository, digest, stage)

    async def _promote(self, approver: Approver, repository: str, digest: str, stage: str) -> Promoted:
        now = self._clock()
        attached = await fetch_attached(self._registry, repository, digest)
        made, _ = verified_summaries(attached, [self.public_key], now)
        expected = self._builders(tenant_of(repository))
        proof = await asyncio.to_thread(prove, attached, self._verifier, expected, now)  # 2
        allowed = self._decide(approver, attached, stage, proof, made)  # 3
        if any(summary.stage == stage for summary in made):  # 1, after 3: strangers learn nothing
            raise PromotionExists(f"{digest} was promoted to {stage} before")
        summary = Summary(
            repository=repository,
            digest=digest,
            stage=stage,
            verifier=self._name,
            verified_at=now,
            policy_digest=self._policies.digest,
            inputs=proof.bundles,
            approver=approver.identity,
            builder=proof.signer.subject,
        )
        envelope = sign_summary(summary, self._key)  # 4
        return Promoted(await self._registry.attach(repository, digest, envelope, ENVELOPE), summary, allowed)

    def _decide(
        self, approver: Approver, attached: Attached, stage: str, proof: Proof, made: list[Summary]
    ) -> tuple[str, ...]:
        staged = [summary.verified_at for summary in made if summary.stage == STAGES[0]]
        waited = (self._clock() - min(staged)).total_seconds() if staged else 0
        own, deny_list = approver.tenant in (None, tenant_of(attached.repository)), self._deny_list()
        request = Request(
            Entity("Approver", approver.identity),
            "promote",
            Entity("Image", attached.digest),
            {
                "issuer": ISSUER,
                "subject": attached.digest,
                "repository": attached.repository,
                "tenant_repository": own,
                "stage": stage,
                "approver_is_builder": approver.identity == proof.signer.subject,
                "staged": bool(staged),
                "staged_minutes": int(waited) // MINUTE,
                "denied": attached.digest in deny_list.digests,
            },
        )
        try:
            allowed = self._policies.require(request).policies
        except PolicyDenied as refused:
            # Who may not promote there at all is not told what is denied.
            denied = ImageDenied if own and attached.digest in deny_list.digests else PromotionDenied
            raise denied(refused.detail, policies=refused.policies) from refused
        require_not_denied(attached.digest, deny_list)
        return allowed
