"""Nobody goes back: stages keep their highest version, repositories their minimum; only an operator says otherwise."""

from dataclasses import replace

import pytest

from umec_core.clock import system_clock
from umec_images.errors import ImageRollback, PromotionRollback
from umec_images.oci.version import parse_version
from umec_images.promotion import Approver, DenyList
from umec_policies import PolicySet, load_default

ISSUER = "https://mgmt.test:8443"
REPOSITORY = "harbour/crane"
OPERATOR = Approver(f"{ISSUER}/identity/v1/clients/release-manager", None)
TENANT = replace(OPERATOR, tenant="harbour")


def below(minimum):
    return DenyList(1, minimums={REPOSITORY: parse_version(minimum)})


def refusal(call, *arguments, **changes):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the code says which
        call(*arguments, **changes)
    return caught.value.code


@pytest.fixture
def version(site, sigstore, push):
    """Return a function that makes a signed image of a version, and returns its digest."""

    def make(text):
        digest = push(f"crane {text}", text)
        site.attach(digest, sigstore.statement(digest))
        return digest

    return make


def test_an_older_version_is_not_promoted_after_a_newer_one(site, version):
    older, newer = version("1.9.0"), version("1.10.0")
    site.promote(newer, "staging")
    with pytest.raises(PromotionRollback) as refused:
        site.promote(older, "staging")
    assert (refused.value.code, refused.value.policies) == ("promotion-rollback", ("forbid-rollback",))
    assert "1.10.0 was promoted to staging before" in refused.value.detail
    site.promote(newer, "production")
    assert site.promote(version("1.10.1"), "staging")


def test_each_stage_and_repository_has_a_history_of_its_own(site, version):
    older, newer = version("1.0.0"), version("2.0.0")
    site.promote(older, "staging")
    site.promote(newer, "staging")
    assert site.promote(older, "production")  # production has seen nothing later


def test_the_same_version_again_is_no_rollback(site, version):
    site.promote(version("1.0.0+first"), "staging")
    assert site.promote(version("1.0.0+second"), "staging")


def test_what_states_no_version_does_not_follow_what_states_one(site, version, signed):
    site.promote(version("1.0.0"), "staging")
    assert refusal(site.promote, signed, "staging") == "promotion-rollback"
    made = site.promote(signed, "staging", rollback="the old pipeline")
    assert (made[0].version, made[0].rolled_back) == (None, True)


def test_what_states_no_version_is_promoted_where_nothing_ever_did(site, signed, push, sigstore):
    site.promote(signed, "staging")
    another = push("another", "latest")
    site.attach(another, sigstore.statement(another))
    assert site.promote(another, "staging")[0].rolled_back is False


def test_only_an_operator_goes_back_and_says_why(site, version):
    older, newer = version("1.0.0"), version("2.0.0")
    site.promote(newer, "staging")
    assert refusal(site.promote, older, "staging", approver=TENANT, rollback="mine") == "promotion-rollback"
    assert refusal(site.promote, older, "staging", approver=OPERATOR) == "promotion-rollback"
    made = site.promote(older, "staging", approver=OPERATOR, rollback="2.0.0 eats memory")
    assert (made[0].version, made[0].rolled_back) == (parse_version("1.0.0"), True)
    assert refusal(site.promote, version("1.5.0"), "staging") == "promotion-rollback"  # 2.0.0 is not forgotten


def test_a_stranger_learns_nothing_of_the_history(site, version):
    older, newer = version("1.0.0"), version("2.0.0")
    site.promote(newer, "staging")
    stranger = replace(OPERATOR, tenant="market")
    assert refusal(site.promote, older, "staging", approver=stranger) == "promotion-denied"


def test_what_is_below_the_minimum_is_not_admitted(site, version):
    older, newer = version("1.0.0"), version("1.1.0")
    for digest in (older, newer):
        site.promote(digest, "staging", "production")
    assert site.admit(older).version == parse_version("1.0.0")
    with pytest.raises(ImageRollback) as refused:
        site.admit(older, deny_list=below("1.1.0-rc.1"))
    assert (refused.value.code, refused.value.policies) == ("image-rollback", ("forbid-below-minimum",))
    assert site.admit(older, deny_list=below("1.0.0")).deny_list_version == 1
    assert site.admit(older, deny_list=DenyList(1, minimums={"harbour/other": parse_version("9.0.0")}))
    assert site.admit(newer, deny_list=below("1.1.0"))


def test_what_states_no_version_is_not_admitted_where_there_is_a_minimum(site, signed):
    site.promote(signed, "staging", "production")
    assert refusal(site.admit, signed, deny_list=below("0.0.0-0")) == "image-rollback"
    assert site.admit(signed)


def test_what_is_below_the_minimum_is_not_promoted_on_purpose_either(site, version):
    older = version("1.0.0")
    site.denied = below("1.1.0")
    assert refusal(site.promote, older, "staging", rollback="on purpose") == "image-rollback"
    site.denied = below("1.0.0")
    assert site.promote(older, "staging")


def lenient(name):
    default = load_default(name)
    start = default.policies_text.index('@id("forbid-below-minimum")')
    end = default.policies_text.index(";", start) + 1
    return PolicySet(default.policies_text[:start] + default.policies_text[end:], default.schema_text)


def test_no_policy_permits_what_is_below_the_minimum(site, version):
    older = version("1.0.0")
    site.promote(older, "staging", "production")
    policies = lenient("admission")
    assert refusal(site.admit, older, policies=policies, deny_list=below("1.1.0")) == "image-rollback"
    assert site.admit(older, policies=policies)
    site.promoter = site.make_promoter(policies=lenient("promotion"), deny_list=lambda: below("1.1.0"))
    assert refusal(site.promote, version("1.0.1"), "staging") == "image-rollback"


def test_a_minimum_needs_a_version_and_production(site, signed, version):
    assert refusal(site.promote, signed, "staging", minimum=True) == "promotion-stage"
    site.promote(signed, "staging")
    assert refusal(site.promote, signed, "production", minimum=True) == "version-missing"
    assert site.promote(signed, "production")
    newer = version("1.0.0")
    site.promote(newer, "staging")
    assert site.promote(newer, "production", minimum=True)[0].version == parse_version("1.0.0")


def test_only_an_operator_raises_a_minimum_with_a_promotion(site, version):
    newer = version("1.0.0")
    site.promote(newer, "staging", approver=TENANT)
    assert refusal(site.promote, newer, "production", approver=TENANT, minimum=True) == "promotion-denied"
    assert site.promote(newer, "production", approver=OPERATOR, minimum=True)


def test_nothing_is_promoted_that_cannot_be_written_down(site, signed):
    known, site.history.full = list(site.registry.attached[signed]), True
    with pytest.raises(OSError, match="disk is full"):
        site.promote(signed, "staging")
    assert site.registry.attached[signed] == known
    site.history.full = False
    assert site.promote(signed, "staging")
    assert len(site.registry.attached[signed]) == len(known) + 1


def test_a_kept_admission_ends_when_a_minimum_rises(site, version, admitter):
    digest = version("1.0.0")
    site.promote(digest, "staging", "production")
    platform = admitter()
    assert platform(digest).version == parse_version("1.0.0")
    site.denied = below("1.0.1")
    assert refusal(platform, digest) == "image-rollback"
    site.denied = DenyList(2)
    assert platform(digest)


def test_a_minimum_that_rises_while_an_image_is_evaluated_counts(site, version, admitter):
    digest = version("1.0.0")
    site.promote(digest, "staging", "production")
    lists = iter([DenyList(), below("2.0.0")])
    assert refusal(admitter(deny_list=lambda: next(lists)), digest) == "image-rollback"
    assert site.admit(digest, now=system_clock())
