"""Admit one digest for a tenant and a stage: everything is fetched, everything is verified, then the policies decide.

1. manifest and referrers come under the digests by which they were asked for (`digest-mismatch`)
2. a trusted builder's provenance is about this digest (`image-unsigned`, `image-signature-invalid`, `image-identity`)
3. a summary by the promotion key is about this digest, in this repository, for exactly this stage
   (`promotion-missing`, `promotion-signature`, `promotion-stage`)
4. facts, typed; the policies allow (`promotion-self-approved`, `admission-denied`), and no operator denied the digest
   (`image-denied`) or a version as low as this (`image-rollback`)
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NoReturn

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from umec_images.errors import AdmissionDenied, SelfApproved
from umec_images.oci.reference import check_digest, check_repository, tenant_of
from umec_images.oci.version import Version
from umec_images.promotion.denylist import DenyList
from umec_images.promotion.evidence import Attached, Builders, Proof, Registry, fetch_attached, prove
from umec_images.promotion.summaries import find_summary
from umec_images.statements import Summary
from umec_images.verify import BundleVerifier, SignerIdentity
from umec_policies import Entity, Fact, PolicyDenied, PolicySet, Request

__all__ = ["Admission", "Terms", "admit", "judge", "question"]

ISSUER: Final = "umec-admission"
"""Who establishes the facts of an admission."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What an admission is judged by."""

    verifier: BundleVerifier
    builders: Builders
    promotion_keys: Sequence[EllipticCurvePublicKey]
    policies: PolicySet
    deny_list: DenyList


@dataclass(frozen=True, slots=True)
class Admission:
    """An image that may run, and everything that this stands on; made by `admit` only."""

    tenant: str
    repository: str
    digest: str
    version: Version | None
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
    deny_list: DenyList,
) -> Admission:
    """Return the admission of `digest` (`sha256:<hex>`) in `repository` (`TENANT/NAME`) for a tenant and a stage.

    Raises DigestMismatch, ImageUnsigned, SignatureInvalid, IdentityRefused, PromotionMissing, PromotionSignature,
    PromotionStage, SelfApproved, AdmissionDenied, ImageDenied or ImageRollback (naming the policies), or why the
    registry does not give the image.
    """
    check_repository(repository)
    check_digest(digest)
    attached = await fetch_attached(registry, repository, digest)  # 1
    terms = Terms(verifier, builders, promotion_keys, policies, deny_list)
    return await asyncio.to_thread(judge, attached, tenant, stage, terms, now)


def judge(attached: Attached, tenant: str, stage: str, terms: Terms, now: datetime) -> Admission:
    """Return the admission of what was fetched; raises as `admit`."""
    proof = prove(attached, terms.verifier, terms.builders(tenant), now)  # 2
    summary = find_summary(attached, stage, keys=terms.promotion_keys, now=now)  # 3
    try:
        decision = terms.policies.require(question(attached, tenant, stage, proof, summary, terms.deny_list, now))  # 4
    except PolicyDenied as refused:
        _refuse(attached, proof, summary, terms.deny_list, refused)
    terms.deny_list.require(attached.repository, attached.digest, attached.version)
    return Admission(
        tenant=tenant,
        repository=attached.repository,
        digest=attached.digest,
        version=attached.version,
        stage=stage,
        policies=decision.policies,
        policy_sha256=decision.policy_digest,
        facts_sha256=decision.facts_digest,
        trusted_root_sha256=terms.verifier.root.digest,
        deny_list_version=terms.deny_list.version,
        builder=proof.signer,
        signed_at=proof.signed_at,
        bundles=proof.bundles,
        approver=summary.approver,
        promoted_at=summary.verified_at,
        admitted_at=now,
    )


def question(
    attached: Attached, tenant: str, stage: str, proof: Proof, summary: Summary, deny_list: DenyList, now: datetime
) -> Request:
    """Return what the policies are asked: the facts that their schema declares."""
    facts: dict[str, Fact] = {
        "issuer": ISSUER,
        "subject": attached.digest,
        "repository": attached.repository,
        "tenant_repository": tenant_of(attached.repository) == tenant,
        "stage": stage,
        "builder": proof.signer.subject,
        "builder_issuer": proof.signer.issuer,
        "signature_age_days": max((now - proof.signed_at).days, 0),
        "self_approved": summary.approver in proof.builders,
        "denied": deny_list.denies(attached.digest),
        "sboms": proof.sboms,
        "version": "" if attached.version is None else attached.version.text,
        "below_minimum": deny_list.rolled_back(attached.repository, attached.version),
    }
    return Request(Entity("Tenant", tenant), "admit", Entity("Image", attached.digest), facts)


def _refuse(attached: Attached, proof: Proof, summary: Summary, deny_list: DenyList, refused: PolicyDenied) -> NoReturn:
    """Raise the refusal that says most."""
    deny_list.require(attached.repository, attached.digest, attached.version, refused.policies)
    if summary.approver in proof.builders:
        detail = f"{summary.approver} built {attached.digest} and approved it: {refused.detail}"
        raise SelfApproved(detail, policies=refused.policies, advice="Have somebody else approve it.") from refused
    raise AdmissionDenied(refused.detail, policies=refused.policies) from refused
