"""Admit one digest for a tenant and a stage: everything is fetched, everything is verified, then the policies decide.

1. manifest and referrers come under the digests by which they were asked for (`digest-mismatch`)
2. a trusted builder's provenance is about this digest (`image-unsigned`, `image-signature-invalid`, `image-identity`)
3. a summary by the promotion key is about this digest, in this repository, for exactly this stage
   (`promotion-missing`, `promotion-signature`, `promotion-stage`)
4. facts, typed; the policies allow (`admission-denied`), and no operator denied the digest (`image-denied`)
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from umec_images.errors import AdmissionDenied, ImageDenied
from umec_images.oci.reference import check_digest, check_repository, tenant_of
from umec_images.promotion.evidence import (
    Builders,
    DenyList,
    Proof,
    Registry,
    fetch_attached,
    prove,
    require_not_denied,
)
from umec_images.promotion.summaries import find_summary
from umec_images.statements import Summary
from umec_images.verify import BundleVerifier, SignerIdentity
from umec_policies import Entity, Fact, PolicyDenied, PolicySet, Request

__all__ = ["Admission", "admit"]

ISSUER: Final = "umec-admission"
"""Who establishes the facts of an admission."""
NOTHING_DENIED: Final = DenyList()


@dataclass(frozen=True, slots=True)
class Admission:
    """An image that may run, and everything that this stands on; made by `admit` only."""

    tenant: str
    repository: str
    digest: str
    stage: str
    policies: tuple[str, ...]
    """Ids of the policies that allowed it."""
    policy_sha256: str
    facts_sha256: str
    trusted_root_sha256: str
    deny_list_version: int
    builder: SignerIdentity
    signed_at: datetime
    bundles: tuple[str, ...]
    """SHA-256 (hex) of the bundles that verified."""
    approver: str
    promoted_at: datetime
    admitted_at: datetime


async def admit(
    *,
    tenant: str,
    repository: str,
    digest: str,
    stage: str,
    registry: Registry,
    verifier: BundleVerifier,
    builders: Builders,
    promotion_keys: Sequence[EllipticCurvePublicKey],
    policies: PolicySet,
    now: datetime,
    deny_list: DenyList = NOTHING_DENIED,
) -> Admission:
    """Return the admission of `digest` (`sha256:<hex>`) in `repository` (`TENANT/NAME`) for a tenant and a stage.

    Raises DigestMismatch, ImageUnsigned, SignatureInvalid, IdentityRefused, PromotionMissing, PromotionSignature,
    PromotionStage, AdmissionDenied or ImageDenied (naming the policies), or why the registry does not give the image.
    """
    check_repository(repository)
    check_digest(digest)
    attached = await fetch_attached(registry, repository, digest)  # 1
    proof = await asyncio.to_thread(prove, attached, verifier, builders(tenant), now)  # 2
    summary = find_summary(attached, stage, keys=promotion_keys, now=now)  # 3
    facts = _facts(tenant, stage, proof, summary, deny_list, now)
    request = Request(Entity("Tenant", tenant), "admit", Entity("Image", digest), facts)
    try:
        decision = policies.require(request)  # 4
    except PolicyDenied as refused:
        denied = ImageDenied if digest in deny_list.digests else AdmissionDenied
        raise denied(refused.detail, policies=refused.policies) from refused
    require_not_denied(digest, deny_list)
    return Admission(
        tenant=tenant,
        repository=repository,
        digest=digest,
        stage=stage,
        policies=decision.policies,
        policy_sha256=decision.policy_digest,
        facts_sha256=decision.facts_digest,
        trusted_root_sha256=verifier.root.digest,
        deny_list_version=deny_list.version,
        builder=proof.signer,
        signed_at=proof.signed_at,
        bundles=proof.bundles,
        approver=summary.approver,
        promoted_at=summary.verified_at,
        admitted_at=now,
    )


def _facts(
    tenant: str, stage: str, proof: Proof, summary: Summary, deny_list: DenyList, now: datetime
) -> dict[str, Fact]:
    return {
        "issuer": ISSUER,
        "subject": summary.digest,
        "repository": summary.repository,
        "tenant_repository": tenant_of(summary.repository) == tenant,
        "stage": stage,
        "builder": proof.signer.subject,
        "builder_issuer": proof.signer.issuer,
        "signature_age_days": max((now - proof.signed_at).days, 0),
        "self_approved": summary.approver == proof.signer.subject,
        "denied": summary.digest in deny_list.digests,
        "sboms": proof.sboms,
    }
