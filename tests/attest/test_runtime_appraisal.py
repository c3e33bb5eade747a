"""What ran since the boot: when it is due, and what its findings do to an appraisal."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from umec_attest.appraisal import AppraisalCache, Verdict, appraise, judge_boot
from umec_attest.bootlog import Finding, parse_boot_log, verify_boot_log
from umec_attest.errors import ImaReplayMismatch
from umec_attest.ima import ImaCheckpoint, RuntimeJudged, parse_runtime_policy
from umec_attest.reference import sign_reference_set, verify_reference_set
from umec_core import dsse
from umec_policies import load_default

POLICY = {"files": {"/usr/bin/true": ["ab" * 32]}}
PCR_10 = b"\x10" * 32


@pytest.fixture
def reference(kit):
    """A set for the good boot, with a runtime policy unless `changes` say otherwise."""

    def run(**changes):
        policy = parse_runtime_policy(POLICY)
        return kit.make_reference(kit.replay_events(kit.good_events()), **({"runtime": policy} | changes))

    return run


@pytest.fixture
def quote(kit, tpm):
    def run(pcr=PCR_10, **changes):
        return tpm.quote_of(kit.replay_events(kit.good_events()) | {10: pcr}, **changes)

    return run


@pytest.fixture
def judge(kit, quote, reference):
    def run(runtime, **changes):
        made = changes.pop("quote", None) or quote()
        arguments = {
            "node": "lamp-7",
            "quote": made,
            "log": verify_boot_log(parse_boot_log(kit.write_log(kit.good_events())), made),
            "reference": reference(),
            "policies": load_default("appraisal"),
            "previous": None,
            "now": kit.NOW,
        }
        return appraise(runtime=runtime, **(arguments | changes))

    return run


def ran(*findings, **checkpoint):
    """A list that was judged up to the quote of this file."""
    policy = parse_runtime_policy(POLICY)
    kept = replace(ImaCheckpoint(reset_count=5, entries=7, pcr=PCR_10, policy_sha256=policy.sha256), **checkpoint)
    return RuntimeJudged(tuple(Finding(identifier, "…") for identifier in findings), kept, 7)


def ids(appraisal):
    return [finding.id for finding in appraisal.findings]


def test_a_node_that_ran_what_it_may(judge):
    appraisal = judge(ran())
    assert (appraisal.verdict, ids(appraisal)) == (Verdict.AFFIRMING, [])
    assert appraisal.facts["runtime_judged"] is True
    assert appraisal.trust_vector["executables"] == 2  # during the boot and after it
    assert appraisal.trust_vector["file-system"] == 2


def test_without_a_list_nothing_is_proven(judge, reference):
    missing = judge(None)
    assert (missing.verdict, ids(missing)) == (Verdict.CONTRAINDICATED, ["ima-missing"])
    assert missing.facts["runtime_judged"] is False
    assert (missing.trust_vector["file-system"], missing.trust_vector["executables"]) == (96, 3)
    unasked = judge(None, reference=reference(runtime=None, ignored={10: "no IMA here"}))
    assert (unasked.verdict, ids(unasked)) == (Verdict.AFFIRMING, [])
    assert (unasked.trust_vector["file-system"], unasked.trust_vector["executables"]) == (0, 3)
    assert unasked.facts["runtime_judged"] is False


def test_a_refused_list_is_a_finding(judge):
    appraisal = judge(ImaReplayMismatch("it does not give PCR 10"))
    assert (appraisal.verdict, ids(appraisal)) == (Verdict.CONTRAINDICATED, ["ima-replay-mismatch"])
    assert appraisal.facts["runtime_contradictions"] == 1


def test_findings_of_a_list_count(judge):
    bad = judge(ran("ima-file-unknown", "ima-violation-tolerated"))
    assert (bad.verdict, ids(bad)) == (Verdict.CONTRAINDICATED, ["ima-file-unknown", "ima-violation-tolerated"])
    assert (bad.facts["runtime_contradictions"], bad.facts["contradictions"], bad.facts["warnings"]) == (1, 1, 1)
    assert (bad.trust_vector["file-system"], bad.trust_vector["executables"]) == (96, 3)
    warned = judge(ran("ima-violation-tolerated"))
    assert (warned.verdict, warned.trust_vector["file-system"]) == (Verdict.WARNING, 32)


def test_a_list_of_another_quote_counts_for_nothing(judge, quote):
    for other in (ran(pcr=b"\x11" * 32), ran(reset_count=4), ran(policy_sha256="00" * 32)):
        appraisal = judge(other)
        assert (appraisal.verdict, ids(appraisal)) == (Verdict.CONTRAINDICATED, ["ima-replay-mismatch"])
        assert appraisal.facts["runtime_judged"] is False
    assert judge(ran(pcr=b"\x11" * 32), quote=quote(b"\x11" * 32)).verdict is Verdict.AFFIRMING


def test_a_growing_list_is_the_same_boot(kit, judge, quote, reference):
    first, later, expected = quote(), quote(b"\x11" * 32), reference()
    log = verify_boot_log(parse_boot_log(kit.write_log(kit.good_events())), first)
    cache = AppraisalCache()
    kept = cache.put("ab" * 32, judge_boot(first, log, expected))
    assert cache.get("ab" * 32, later, expected) is kept
    appraisal = judge(ran(pcr=b"\x11" * 32), quote=later, log=kept, reference=expected)
    assert appraisal.verdict is Verdict.AFFIRMING
    listed = reference(runtime=None, ignored={10: "no IMA here"})
    kept = cache.put("ab" * 32, judge_boot(first, log, listed))
    assert cache.get("ab" * 32, later, listed) is None


def test_a_list_that_no_set_asked_for_counts_for_nothing(judge, reference):
    unasked = judge(ran(), reference=reference(runtime=None, ignored={10: "no IMA here"}))
    assert (unasked.verdict, ids(unasked)) == (Verdict.CONTRAINDICATED, ["ima-replay-mismatch"])


# --- what a reference set may say ------------------------------------------------------------------------------------


def test_the_policy_is_what_was_signed(reference):
    assert reference().runtime == parse_runtime_policy(POLICY)
    assert reference(runtime=None).runtime is None


def test_pcr_10_has_one_meaning(kit, reference, refused):
    values = {kit.SHA256: {4: [bytes(32)], 10: [PCR_10]}}
    with refused("reference-invalid"):
        reference(pcrs=values)
    reference(pcrs=values, runtime=None)
    with refused("reference-invalid"):
        reference(ignored={10: "grows"})
    reference(ignored={13: "grows"})


def test_a_faulty_policy_is_refused(kit, refused):
    key = kit.reference_key()
    good = sign_reference_set(
        name="edge",
        subject_sha256="cd" * 32,
        version=1,
        issued=kit.NOW,
        expires=kit.NOW + timedelta(days=1),
        pcrs={kit.SHA256: {4: [bytes(32)]}},
        ignored={},
        key=key,
        runtime=parse_runtime_policy(POLICY),
    )
    statement = json.loads(dsse.verify(good, keys=[key.public_key()], payload_type=dsse.IN_TOTO))
    for runtime, code in (
        ({}, "reference-empty"),
        ({"files": {"relative": ["ab" * 32]}}, "reference-invalid"),
        (POLICY | {"unknown": 1}, "reference-invalid"),
        ([], "reference-invalid"),
    ):
        statement["predicate"]["runtime"] = runtime
        envelope = dsse.sign(json.dumps(statement).encode(), dsse.IN_TOTO, key)
        with refused(code):
            verify_reference_set(envelope, signers=[key.public_key()], now=kit.NOW, minimum_version=0)
    verify_reference_set(good, signers=[key.public_key()], now=kit.NOW, minimum_version=0)
