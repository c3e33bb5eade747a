"""An explanation says what admission says, and lists every check that could be done, also after the first refusal."""

import asyncio
from dataclasses import replace

import pytest

from umec_core.clock import system_clock
from umec_core.errors import UmecError
from umec_images.admission import Terms
from umec_images.explain import explain_admission, explain_proof
from umec_images.oci.version import parse_version
from umec_images.promotion import DenyList, sign_summary, trusted_builders
from umec_images.promotion.evidence import ENVELOPE, fetch_attached
from umec_images.verify import Identity
from umec_policies import PolicySet, load_default

ISSUER = "https://mgmt.test:8443"
REPOSITORY = "harbour/crane"
BUILDER = f"{ISSUER}/identity/v1/clients/builder"
BUILDERS = trusted_builders(ISSUER, {"harbour": ["builder"]})


@pytest.fixture
def explained(site):
    """Return a function that explains an admission, after asserting that admission itself says the same."""

    def explain(digest, tenant="harbour", **terms):
        wanted = Terms(
            **{
                "verifier": site.verifier,
                "builders": BUILDERS,
                "promotion_keys": (site.key.public_key(),),
                "policies": load_default("admission"),
                "deny_list": site.denied,
                **terms,
            }
        )
        arguments = {"tenant": tenant, "repository": REPOSITORY, "digest": digest, "stage": "production"}
        said = asyncio.run(explain_admission(registry=site.registry, terms=wanted, now=system_clock(), **arguments))
        refusal = None
        try:
            site.admit(**{**arguments, "builders": BUILDERS, **terms})
        except UmecError as refused:
            refusal = (refused.code, refused.detail)
        assert refusal == (None if said.refusal is None else (said.refusal.code, said.refusal.detail))
        return said.to_json()

    return explain


def outline(said):
    """Return (check, status, code) without the digests of what is attached."""
    return [(each["check"].split(" ")[0], each["status"], each["code"]) for each in said["checks"]]


def test_what_would_start(site, signed, explained):
    site.promote(signed, "staging", "production")
    said = explained(signed)
    assert (said["admitted"], said["code"], said["detail"]) == (True, None, None)
    assert outline(said) == [
        ("manifest", "holds", None),
        ("bundle", "holds", None),
        ("provenance", "holds", None),
        ("summary", "holds", None),
        ("summary", "holds", None),
        ("promotion", "holds", None),
        ("deny", "holds", None),
        ("policy", "holds", None),
    ]
    policy = said["checks"][-1]
    assert (policy["policies"], policy["policy_sha256"]) == (["admit-production"], load_default("admission").digest)
    assert policy["facts"]["builder"] == BUILDER
    assert "self_approved" in policy["turned_by"]
    assert f"built by {BUILDER}" in said["checks"][2]["found"]


def test_every_fault_is_listed_not_only_the_first(site, sigstore, push, explained):
    digest = push("crane", "1.0.0")
    site.attach(digest, sigstore.statement(digest, client="stranger"))
    site.attach(digest, b"{}", artifact_type=ENVELOPE)
    site.denied = DenyList(7, minimums={REPOSITORY: parse_version("2.0.0")})
    said = explained(digest)
    assert (said["admitted"], said["code"]) == (False, "image-identity")
    assert outline(said) == [
        ("manifest", "holds", None),
        ("bundle", "passed-over", "image-identity"),
        ("provenance", "refused", "image-identity"),
        ("summary", "passed-over", "promotion-signature"),
        ("promotion", "refused", "promotion-signature"),
        ("deny", "refused", "image-rollback"),
        ("policy", "not-judged", None),
    ]
    deny = said["checks"][-2]
    assert deny["expected"] == "not denied, and at least version 2.0.0 (deny list, version 7)"
    assert "version 1.0.0" in deny["found"]
    assert deny["advice"]


def test_a_denied_image_names_the_policy_and_what_would_turn_it_around(site, signed, explained):
    site.promote(signed, "staging", "production")
    site.denied = DenyList(1, frozenset({signed}))
    said = explained(signed)
    assert said["code"] == "image-denied"
    policy = said["checks"][-1]
    assert (policy["status"], policy["code"], policy["policies"]) == ("refused", "image-denied", ["forbid-deny-listed"])
    assert policy["turned_by"] == {"denied": False}
    assert "denied" in policy["advice"]
    assert "forbid-deny-listed" in policy["found"]


def test_a_policy_of_nobody_permits_nothing(site, signed, explained):
    site.promote(signed, "staging", "production")
    default = load_default("admission")
    first_forbid = '@id("forbid-self-approved")'
    forbids = PolicySet(first_forbid + default.policies_text.partition(first_forbid)[2], default.schema_text)
    policy = explained(signed, policies=forbids)["checks"][-1]
    assert (policy["status"], policy["code"]) == ("refused", "admission-denied")
    assert (policy["found"], policy["advice"]) == ("no policy permits it", None)


def test_a_self_approved_image_says_so(site, signed, explained):
    own = replace(site.summary(signed), approver=BUILDER)
    site.attach(signed, sign_summary(own, site.key), artifact_type=ENVELOPE)
    said = explained(signed)
    assert said["code"] == "promotion-self-approved"
    assert said["checks"][-1]["code"] == "promotion-self-approved"
    assert said["advice"] == "Have somebody else approve it."


def test_a_tenant_for_whom_nobody_builds(site, signed, explained):
    site.promote(signed, "staging", "production")
    said = explained(signed, tenant="nobody")
    assert said["code"] == "image-identity"
    assert outline(said)[:2] == [("builders", "refused", "image-identity"), ("provenance", "not-judged", None)]
    assert outline(said)[-1] == ("policy", "not-judged", None)


def test_an_image_that_is_not_there_or_not_the_one(site, signed, explained):
    absent = explained("sha256:" + "0" * 64)
    assert outline(absent) == [("manifest", "refused", "manifest-unknown")]
    kept = site.registry.manifests[signed]
    site.registry.manifests[signed] = kept + b" "
    assert outline(explained(signed)) == [("manifest", "refused", "digest-mismatch")]
    site.registry.manifests[signed] = kept
    assert outline(explained(signed))[0] == ("manifest", "holds", None)


def test_what_is_attached_is_explained_without_the_site(site, sigstore, push):
    digest = push("crane", "1.4.0")
    sbom = {"predicate_type": "https://spdx.dev/Document", "predicate": {"spdxVersion": "SPDX-2.3"}}
    for bundle in (sigstore.statement(digest, **sbom), sigstore.statement(digest), b"junk"):
        site.attach(digest, bundle)
    attached = asyncio.run(fetch_attached(site.registry, REPOSITORY, digest))
    checks, proof = explain_proof(attached, site.verifier, Identity(BUILDER, ISSUER), system_clock())
    assert proof.signer.subject == BUILDER
    assert [check.status for check in checks] == ["holds", "holds", "holds", "passed-over", "holds"]
    assert "version 1.4.0" in checks[0].found
    assert checks[1].found.startswith("https://spdx.dev/Document by ")
    assert checks[2].found.startswith(f"provenance by {BUILDER}, signed at 2")
    strange, proof = explain_proof(attached, site.verifier, Identity("urn:somebody", ISSUER), system_clock())
    assert (proof, strange[-1].code) == (None, "image-identity")
