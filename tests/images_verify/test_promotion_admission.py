"""From a signed image to a promoted and an admitted one; each fault alone refuses with its code."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from umec_core import dsse
from umec_core.clock import system_clock
from umec_images.admission import Admitter
from umec_images.errors import (
    ImageDenied,
    PromotionDenied,
    PromotionExists,
    PromotionStage,
    SelfApproved,
    SignatureInvalid,
)
from umec_images.oci.errors import ManifestUnknown
from umec_images.oci.manifest import MANIFEST, Descriptor
from umec_images.promotion import Approver, DenyList, Wish, sign_summary, trusted_builders
from umec_images.promotion.evidence import ENVELOPE
from umec_images.statements import encode_statement, encode_summary
from umec_policies import PolicySet, load_default

ISSUER = "https://mgmt.test:8443"
REPOSITORY = "harbour/crane"
BUILDERS = trusted_builders(ISSUER, {"harbour": ["builder", "second-builder"], "market": ["builder"]})
BUILDER = f"{ISSUER}/identity/v1/clients/builder"
MANAGER = Approver(f"{ISSUER}/identity/v1/clients/release-manager", None)
OWN = Approver(BUILDER, "harbour")
SBOM = {"predicate_type": "https://spdx.dev/Document", "predicate": {"spdxVersion": "SPDX-2.3"}}


def refusal(call, *arguments, **changes):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the code says which
        call(*arguments, **changes)
    return caught.value.code


def test_a_signed_and_promoted_image_is_admitted_and_everything_is_named(site, signed):
    made = site.promote(signed, "staging", "production")
    admission = site.admit(signed)
    assert admission.policies == ("admit-production",)
    assert admission.policy_sha256 == load_default("admission").digest
    assert admission.builder.subject == BUILDER
    assert admission.approver == MANAGER.identity
    assert admission.trusted_root_sha256 == site.verifier.root.digest
    assert made[1].summary.inputs == admission.bundles
    assert made[1].policies == ("promote-to-production",)
    assert site.admit(signed, stage="staging").policies == ("admit-staging",)


def test_an_unsigned_image_is_neither_promoted_nor_admitted(site, sigstore, push):
    digest = push()
    assert refusal(site.promote, digest, "staging") == "image-unsigned"
    assert refusal(site.admit, digest) == "image-unsigned"
    site.attach(digest, sigstore.statement(digest))
    site.promote(digest, "staging", "production")
    assert site.admit(digest)


def test_a_foreign_identity_is_neither_promoted_nor_admitted(site, sigstore, push):
    digest = push()
    site.attach(digest, sigstore.statement(digest, client="stranger"))
    assert refusal(site.promote, digest, "staging") == "image-identity"
    assert refusal(site.admit, digest) == "image-identity"
    site.attach(digest, sigstore.statement(digest))
    assert site.promote(digest, "staging")


def test_a_builder_does_not_speak_for_another(site, sigstore, push):
    digest = push()
    site.attach(digest, sigstore.statement(digest, client="second-builder"))
    assert refusal(site.promote, digest, "staging") == "image-identity"
    own = {
        "buildDefinition": {"buildType": "urn:umec:build:v1", "externalParameters": {}},
        "runDetails": {"builder": {"id": f"{ISSUER}/identity/v1/clients/second-builder"}},
    }
    site.attach(digest, sigstore.statement(digest, client="second-builder", predicate=own))
    assert site.promote(digest, "staging")


def test_provenance_that_says_nothing_is_refused(site, sigstore, push):
    digest = push()
    site.attach(digest, sigstore.statement(digest, predicate={"buildDefinition": {}}))
    assert refusal(site.promote, digest, "staging") == "image-unsigned"
    site.attach(digest, sigstore.statement(digest))
    assert site.promote(digest, "staging")


def test_a_tenant_for_whom_nobody_builds_gets_nothing(site, signed):
    site.promote(signed, "staging", "production")
    assert refusal(site.admit, signed, tenant="nobody") == "image-identity"
    assert site.admit(signed)


def test_a_statement_about_another_image_is_no_statement_about_this_one(site, sigstore, push):
    digest, other = push(), push("other")
    site.attach(digest, sigstore.statement(other))
    assert refusal(site.promote, digest, "staging") == "digest-mismatch"
    assert refusal(site.admit, digest) == "digest-mismatch"


def test_a_changed_bundle_is_refused(site, sigstore, push):
    digest = push()
    bundle = sigstore.statement(digest)
    at = bundle.index(b'"sig":"') + 20
    site.attach(digest, bundle[:at] + (b"A" if bundle[at : at + 1] != b"A" else b"B") + bundle[at + 1 :])
    assert refusal(site.promote, digest, "staging") == "image-signature-invalid"
    site.attach(digest, bundle)
    assert site.promote(digest, "staging")


def test_a_signature_that_is_no_provenance_is_not_enough(site, sigstore, push):
    digest = push()
    site.attach(digest, sigstore.statement(digest, **SBOM))
    assert refusal(site.promote, digest, "staging") == "image-unsigned"
    site.attach(digest, sigstore.statement(digest))
    site.promote(digest, "staging", "production")
    assert len(site.admit(digest).bundles) == 2


def test_junk_beside_a_good_bundle_does_no_harm(site, sigstore, push):
    digest = push()
    for junk in (b"{}", sigstore.statement(digest, client="stranger")):
        site.attach(digest, junk)
    site.attach(digest, b"{}", artifact_type=ENVELOPE)
    site.attach(digest, sigstore.statement(digest))
    site.promote(digest, "staging", "production")
    assert site.admit(digest).builder.subject == BUILDER


def test_too_much_attached_is_refused(site, signed):
    site.promote(signed, "staging", "production")
    known = list(site.registry.attached[signed])
    for number in range(65):
        site.attach(signed, str(number).encode())
    assert refusal(site.admit, signed) == "attachments-too-many"
    site.registry.attached[signed] = known
    assert site.admit(signed)


def test_production_needs_staging_first(site, signed):
    assert refusal(site.promote, signed, "production") == "promotion-denied"
    site.promote(signed, "staging")
    assert site.promote(signed, "production")


def test_nobody_approves_their_own_work(site, signed):
    with pytest.raises(SelfApproved) as denied:
        site.promote(signed, "staging", approver=OWN)
    assert (denied.value.code, denied.value.policies) == ("promotion-self-approved", ("forbid-own-work",))
    foreign = replace(OWN, tenant="market")
    assert refusal(site.promote, signed, "staging", approver=foreign) == "promotion-denied"
    assert site.promote(signed, "staging", approver=replace(OWN, identity="urn:another"))


def test_none_of_several_builders_approves(site, sigstore, signed, push):
    second = f"{ISSUER}/identity/v1/clients/second-builder"
    own = {
        "buildDefinition": {"buildType": "urn:umec:build:v1", "externalParameters": {}},
        "runDetails": {"builder": {"id": second}},
    }
    approver = Approver(second, "harbour")
    site.promote(signed, "staging", "production", approver=approver)
    assert site.admit(signed).builder.subject == BUILDER
    site.attach(signed, sigstore.statement(signed, client="second-builder", predicate=own))
    assert refusal(site.admit, signed) == "promotion-self-approved"
    another = push("another")
    for client, predicate in (("builder", None), ("second-builder", own)):
        site.attach(another, sigstore.statement(another, client=client, predicate=predicate))
    assert refusal(site.promote, another, "staging", approver=approver) == "promotion-self-approved"
    assert refusal(site.promote, another, "staging", approver=OWN) == "promotion-self-approved"
    assert site.promote(another, "staging")


def test_nobody_approves_for_another_tenant(site, signed):
    with pytest.raises(PromotionDenied) as denied:
        site.promote(signed, "staging", approver=replace(MANAGER, tenant="market"))
    assert denied.value.policies == ("forbid-repository-of-others",)
    assert site.promote(signed, "staging", approver=replace(MANAGER, tenant="harbour"))


def test_a_stage_is_passed_once_and_exists(site, signed):
    with pytest.raises(PromotionStage):
        site.promote(signed, "elsewhere")
    site.promote(signed, "staging")
    with pytest.raises(PromotionExists) as again:
        site.promote(signed, "staging")
    assert again.value.code == "promotion-exists"


def test_without_promotion_there_is_no_admission(site, signed):
    assert refusal(site.admit, signed) == "promotion-missing"
    site.promote(signed, "staging", "production")
    assert site.admit(signed)


def test_a_staging_summary_is_not_good_for_production(site, signed):
    site.promote(signed, "staging")
    assert refusal(site.admit, signed) == "promotion-stage"
    site.promote(signed, "production")
    assert site.admit(signed)


def test_a_summary_under_another_key_is_refused(site, signed):
    foreign = ec.generate_private_key(ec.SECP256R1())
    site.attach(signed, sign_summary(site.summary(signed), foreign), artifact_type=ENVELOPE)
    assert refusal(site.admit, signed) == "promotion-signature"
    assert site.admit(signed, promotion_keys=[foreign.public_key()])
    assert refusal(site.admit, signed, promotion_keys=[]) == "promotion-signature"


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "sha256:" + "0" * 64},
        {"repository": "market/crane"},
        {"verified_at": system_clock() + timedelta(days=1)},
    ],
    ids=["digest", "repository", "future"],
)
def test_a_summary_about_something_else_is_refused(site, signed, change):
    site.attach(signed, sign_summary(replace(site.summary(signed), **change), site.key), artifact_type=ENVELOPE)
    assert refusal(site.admit, signed) == "promotion-missing"
    site.attach(signed, sign_summary(site.summary(signed), site.key), artifact_type=ENVELOPE)
    assert site.admit(signed)


def test_a_summary_of_another_payload_type_is_refused(site, signed):
    payload = encode_statement(encode_summary(site.summary(signed)))
    site.attach(signed, dsse.sign(payload, "application/json", site.key), artifact_type=ENVELOPE)
    assert refusal(site.admit, signed) == "promotion-signature"
    site.attach(signed, dsse.sign(payload, dsse.IN_TOTO, site.key), artifact_type=ENVELOPE)
    assert site.admit(signed)


def test_a_self_approved_summary_is_not_admitted(site, signed):
    own = site.summary(signed, approver=BUILDER)
    site.attach(signed, sign_summary(own, site.key), artifact_type=ENVELOPE)
    with pytest.raises(SelfApproved) as denied:
        site.admit(signed)
    assert (denied.value.code, denied.value.policies) == ("promotion-self-approved", ("forbid-self-approved",))
    earlier = site.summary(signed, verified_at=system_clock() - timedelta(seconds=60))
    site.attach(signed, sign_summary(earlier, site.key), artifact_type=ENVELOPE)
    assert site.admit(signed)


def test_another_tenant_s_repository_is_not_admitted(site, signed):
    site.promote(signed, "staging", "production")
    assert refusal(site.admit, signed, tenant="market") == "admission-denied"
    assert site.admit(signed)


def test_a_denied_digest_is_neither_promoted_nor_admitted(site, signed):
    site.promote(signed, "staging")
    site.denied = DenyList(1, frozenset({signed}))
    with pytest.raises(ImageDenied) as denied:
        site.promote(signed, "production")
    assert (denied.value.code, denied.value.policies) == ("image-denied", ("forbid-deny-listed",))
    assert refusal(site.promote, signed, "production", approver=replace(MANAGER, tenant="market")) == "promotion-denied"
    site.denied = DenyList(2)
    site.promote(signed, "production")
    with pytest.raises(ImageDenied) as denied:
        site.admit(signed, deny_list=DenyList(3, frozenset({signed})))
    assert (denied.value.code, denied.value.policies) == ("image-denied", ("forbid-deny-listed",))
    assert site.admit(signed)


def without(name, rule):
    """Return a default set without one of its rules."""
    default = load_default(name)
    start = default.policies_text.index(f'@id("{rule}")')
    end = default.policies_text.index(";", start) + 1
    return PolicySet(default.policies_text[:start] + default.policies_text[end:], default.schema_text)


def test_no_policy_permits_what_an_operator_denied(site, signed):
    site.promote(signed, "staging", "production")
    lenient, denied = without("admission", "forbid-deny-listed"), DenyList(1, frozenset({signed}))
    assert refusal(site.admit, signed, policies=lenient, deny_list=denied) == "image-denied"
    assert site.admit(signed, policies=lenient)
    promoter = {"policies": without("promotion", "forbid-deny-listed"), "deny_list": lambda: denied}
    site.promoter = site.make_promoter(**promoter)
    assert refusal(site.promote, signed, "staging") == "image-denied"
    site.promoter = site.make_promoter(**{**promoter, "deny_list": DenyList})
    assert refusal(site.promote, signed, "staging") == "promotion-exists"


def test_without_a_policy_that_permits_nothing_is_admitted(site, signed):
    site.promote(signed, "staging", "production")
    default = load_default("admission")
    first_forbid = '@id("forbid-self-approved")'
    only_forbids = PolicySet(first_forbid + default.policies_text.partition(first_forbid)[2], default.schema_text)
    assert refusal(site.admit, signed, policies=only_forbids) == "admission-denied"
    assert site.admit(signed)


def test_a_changed_manifest_is_refused(site, signed):
    site.promote(signed, "staging", "production")
    kept = site.registry.manifests[signed]
    site.registry.manifests[signed] = kept + b" "
    assert refusal(site.admit, signed) == "digest-mismatch"
    site.registry.manifests[signed] = kept
    assert site.admit(signed)


def test_changed_attachments_are_refused(site, signed):
    site.promote(signed, "staging", "production")
    for store in (site.registry.blobs, site.registry.manifests):
        for digest in [key for key in store if key != signed]:
            kept = store[digest]
            store[digest] = kept + b" "
            assert refusal(site.admit, signed) == "digest-mismatch"
            store[digest] = kept
    assert site.admit(signed)


def test_a_referrer_of_another_image_does_not_count(site, sigstore, push):
    digest, other = push(), push("other")
    site.attach(other, sigstore.statement(digest))
    site.registry.attached[digest] = site.registry.attached[other]
    assert refusal(site.promote, digest, "staging") == "image-unsigned"
    site.attach(digest, sigstore.statement(digest))
    assert site.promote(digest, "staging")


def test_an_image_that_is_not_there_is_not_admitted(site, signed):
    with pytest.raises(ManifestUnknown):
        site.admit("sha256:" + "0" * 64)
    site.registry.attached[signed].append(Descriptor(MANIFEST, "sha256:" + "1" * 64, 1, ENVELOPE))
    with pytest.raises(ManifestUnknown):
        site.admit(signed)


def admitter(site, **changes):
    wanted = {
        "registry": site.registry,
        "verifier": site.verifier,
        "builders": BUILDERS,
        "promotion_keys": [site.key.public_key()],
        "policies": lambda: load_default("admission"),
        "clock": site.clock,
        "deny_list": lambda: site.denied,
    }
    return Admitter(**{**wanted, **changes})


def test_one_evaluation_for_many_that_ask_at_once_and_until_something_changes(site, signed):
    site.promote(signed, "staging", "production")
    platform = admitter(site)

    async def work():
        before = site.registry.requests
        wanted = [platform.admit(tenant="harbour", repository=REPOSITORY, digest=signed) for _ in range(20)]
        admissions = await asyncio.gather(*wanted)
        once = site.registry.requests - before
        assert len({id(admission) for admission in admissions}) == 1
        await platform.admit(tenant="harbour", repository=REPOSITORY, digest=signed)
        assert site.registry.requests - before == once
        site.denied = DenyList(1, frozenset({signed}))
        with pytest.raises(ImageDenied):
            await platform.admit(tenant="harbour", repository=REPOSITORY, digest=signed)
        site.denied = DenyList(2)
        evaluated = asyncio.create_task(platform.admit(tenant="harbour", repository=REPOSITORY, digest=signed))
        await asyncio.sleep(0)
        site.denied = DenyList(2, frozenset({signed}))  # while it is evaluated
        with pytest.raises(ImageDenied):
            await evaluated
        site.denied = DenyList(2)
        assert (await platform.admit(tenant="harbour", repository=REPOSITORY, digest=signed)).deny_list_version == 2
        now = system_clock() + timedelta(minutes=6)
        later = await platform.admit(tenant="harbour", repository=REPOSITORY, digest=signed, now=now)
        assert later.admitted_at == now

    asyncio.run(work())


def test_a_refusal_is_not_kept(site, signed):
    platform = admitter(site)

    async def work():
        with pytest.raises(Exception, match="never promoted"):
            await platform.admit(tenant="harbour", repository=REPOSITORY, digest=signed)
        for stage in ("staging", "production"):
            await site.promoter.promote(MANAGER, Wish(REPOSITORY, signed, stage))
        return await platform.admit(tenant="harbour", repository=REPOSITORY, digest=signed)

    assert asyncio.run(work()).policies == ("admit-production",)


def test_a_managed_key_is_no_builder(site, signed):
    site.promote(signed, "staging", "production")
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(SignatureInvalid):
        site.admit(signed, builders=lambda _tenant: key)
    assert site.admit(signed)
