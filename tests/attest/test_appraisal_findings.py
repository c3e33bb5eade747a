"""Appraisal: every finding, the verdict it leads to, and no false alarm over reboots and power cuts."""

import base64
import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.appraisal import Verdict, appraise
from umec_attest.bootlog import parse_boot_log, verify_boot_log
from umec_attest.clock import ClockState, clock_findings, next_clock_state
from umec_attest.ear import EAR_PROFILE, ear_claims
from umec_attest.errors import BootLogReplayMismatch
from umec_attest.quote import VerifiedQuote
from umec_attest.tpm.attest import ClockInfo
from umec_policies import PolicySet, load_default


@pytest.fixture(scope="module")
def policies():
    return load_default("appraisal")


@pytest.fixture
def judge(kit, tpm, policies):
    """Appraise a machine that booted `events` against what the good machine gives; `changes` replace any argument."""

    def run(events=None, reference=None, **changes):
        made = kit.good_events() if events is None else events
        values = kit.replay_events(made)
        quote = tpm.quote_of(values, **changes.pop("tpm", {}))
        expected = kit.make_reference(kit.replay_events(kit.good_events()), **(reference or {}))
        arguments = {
            "node": "lamp-7",
            "quote": quote,
            "log": verify_boot_log(parse_boot_log(kit.write_log(made)), quote),
            "reference": expected,
            "policies": policies,
            "previous": None,
            "now": kit.NOW,
        }
        return appraise(**(arguments | changes))

    return run


def ids(appraisal):
    return {finding.id for finding in appraisal.findings}


def test_a_good_node_is_affirmed(judge):
    appraisal = judge()
    assert appraisal.verdict is Verdict.AFFIRMING
    assert appraisal.findings == ()
    assert appraisal.policy_ids == ("trust-measured-state",)
    assert appraisal.trust_vector == {
        "instance-identity": 2,
        "configuration": 2,
        "executables": 3,
        "file-system": 0,
        "hardware": 2,
        "runtime-opaque": 0,
        "storage-opaque": 0,
        "sourced-data": 0,
    }


def test_a_changed_kernel(kit, judge):
    events = kit.good_events()
    events[-2].digest = hashlib.sha256(b"another kernel").digest()
    appraisal = judge(events)
    assert appraisal.verdict is Verdict.CONTRAINDICATED
    (finding,) = appraisal.findings
    assert finding.id == "pcr-unexpected"
    assert finding.expected == kit.replay_events(kit.good_events())[11].hex()
    assert finding.found == kit.replay_events(events)[11].hex()
    assert appraisal.trust_vector["executables"] == 96
    assert appraisal.trust_vector["hardware"] == 2


def test_all_findings_are_told_not_the_first(kit, judge):
    events = kit.good_events()
    events[1].digest = hashlib.sha256(b"other firmware").digest()
    events[2] = kit.Event(7, "CONFIG", kit.variable(kit.GLOBAL, "SecureBoot", b"\0"))
    appraisal = judge(events, log=BootLogReplayMismatch("PCR 4: …"))
    assert ids(appraisal) == {"pcr-unexpected", "bootlog-replay-mismatch"}
    assert len(appraisal.findings) == 3
    assert {name for name, tier in appraisal.trust_vector.items() if tier == 96} == {
        "executables",
        "configuration",
        "hardware",
    }


def test_a_missing_or_refused_log(judge):
    for log, finding in ((None, "bootlog-missing"), (BootLogReplayMismatch("PCR 5"), "bootlog-replay-mismatch")):
        appraisal = judge(log=log)
        assert appraisal.verdict is Verdict.CONTRAINDICATED
        assert ids(appraisal) == {finding}
    assert judge().verdict is Verdict.AFFIRMING


def test_a_log_of_another_quote(kit, tpm, judge):
    events = [*kit.good_events(), kit.Event(5, "ACTION", b"Exit Boot Services Returned with Success")]
    other = tpm.quote_of(kit.replay_events(events))
    log = verify_boot_log(parse_boot_log(kit.write_log(events)), other)
    appraisal = judge(log=log)
    assert (appraisal.verdict, ids(appraisal)) == (Verdict.CONTRAINDICATED, {"bootlog-replay-mismatch"})


def test_a_pcr_that_nobody_listed_and_one_that_nobody_quoted(kit, judge):
    values = kit.replay_events(kit.good_events())
    without = {pcr: [value] for pcr, value in values.items() if pcr != 12}
    assert ids(judge(reference={"pcrs": {kit.SHA256: without}})) == {"pcr-unlisted"}
    ignored = {"pcrs": {kit.SHA256: without}, "ignored": {12: "credentials of the site"}}
    assert judge(reference=ignored).verdict is Verdict.AFFIRMING
    more = {pcr: [value] for pcr, value in (values | {13: bytes(32)}).items()}
    assert ids(judge(reference={"pcrs": {kit.SHA256: more}})) == {"pcr-not-quoted"}


def test_alternatives(kit, judge):
    values = kit.replay_events(kit.good_events())
    both = {pcr: [bytes(32), value] for pcr, value in values.items()}
    assert judge(reference={"pcrs": {kit.SHA256: both}}).verdict is Verdict.AFFIRMING


def test_so_many_alternatives_are_shown(kit, judge):
    values = kit.replay_events(kit.good_events())
    for count, end in ((8, bytes([8]).hex() * 32), (9, "1 more"), (20, "12 more")):
        listed = [bytes([n]) * 32 for n in range(1, count + 1)]
        (finding,) = judge(
            reference={"pcrs": {kit.SHA256: {pcr: [v] for pcr, v in values.items()} | {11: listed}}}
        ).findings
        shown = finding.expected.split(" or ")
        assert (len(shown), shown[-1]) == (min(count, 8) + (count > 8), end)


def test_a_finding_about_firmware_is_one_about_hardware(kit, judge):
    events = kit.good_events()
    events[0].digest = hashlib.sha256(b"another version").digest()
    expected = {pcr: [value] for pcr, value in kit.replay_events(events).items()}
    appraisal = judge(events, {"pcrs": {kit.SHA256: expected}})
    assert ids(appraisal) == {"crtm-version-invalid"}
    assert {claim for claim, tier in appraisal.trust_vector.items() if tier == 96} == {"hardware"}


def test_secure_boot_off_degrades_even_if_the_reference_set_expects_it(kit, judge):
    events = kit.good_events()
    events[2] = kit.Event(7, "CONFIG", kit.variable(kit.GLOBAL, "SecureBoot", b"\0"))
    expected = {pcr: [value] for pcr, value in kit.replay_events(events).items()}
    appraisal = judge(events, {"pcrs": {kit.SHA256: expected}})
    assert (appraisal.verdict, ids(appraisal)) == (Verdict.WARNING, {"secure-boot-off"})
    assert appraisal.trust_vector["configuration"] == 32


def test_a_log_that_replays_and_is_forged_is_contraindicated(kit, judge):
    events = kit.good_events()
    events[2].data = kit.variable(kit.GLOBAL, "SecureBoot", b"\0")
    events[2].digest = hashlib.sha256(kit.good_events()[2].data).digest()
    appraisal = judge(events)
    assert appraisal.verdict is Verdict.CONTRAINDICATED
    assert ids(appraisal) == {"event-data-mismatch", "secure-boot-unknown"}


def test_an_expired_reference_set(kit, judge):
    assert ids(judge(now=kit.NOW + timedelta(days=30))) == {"reference-expired"}
    assert judge(now=kit.NOW + timedelta(days=29)).verdict is Verdict.AFFIRMING


def test_policies_decide(judge, policies):
    strict = PolicySet(
        policies.policies_text + '\n@id("forbid-all") forbid (principal, action, resource);', policies.schema_text
    )
    appraisal = judge(policies=strict)
    assert appraisal.verdict is Verdict.CONTRAINDICATED
    assert appraisal.policy_ids == ("forbid-all",)
    assert appraisal.policy_digest == strict.digest != policies.digest


def test_policies_cannot_be_milder_than_the_findings(kit, judge, policies):
    mild = PolicySet('@id("all") permit (principal, action, resource);', policies.schema_text)
    assert (judge(policies=mild).verdict, judge(policies=mild).policy_ids) == (Verdict.AFFIRMING, ("all",))
    off = kit.good_events()
    off[2] = kit.Event(7, "CONFIG", kit.variable(kit.GLOBAL, "SecureBoot", b"\0"))
    expected = {"pcrs": {kit.SHA256: {pcr: [value] for pcr, value in kit.replay_events(off).items()}}}
    warned = judge(off, expected, policies=mild)
    assert (warned.verdict, ids(warned), warned.policy_ids) == (Verdict.WARNING, {"secure-boot-off"}, ("all",))
    changed = judge(off, policies=mild)
    assert (changed.verdict, changed.policy_ids) == (Verdict.CONTRAINDICATED, ())


# --- the clock ------------------------------------------------------------------------------------------------------

BEFORE = ClockState(reset_count=5, restart_count=2, clock=1_000_000, firmware_version=7, reset_clock=500_000)


def clock(info, firmware_version=7, previous=BEFORE):
    quote = VerifiedQuote({}, info, firmware_version)
    return {finding.id for finding in clock_findings(quote, previous)}


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (ClockInfo(1_000_001, 5, 2, safe=True), set()),
        (ClockInfo(1_000_001, 5, 3, safe=True), set()),
        (ClockInfo(1_000_001, 5, 1, safe=True), {"restart-count-fell"}),
        (ClockInfo(999_999, 5, 2, safe=True), {"clock-fell"}),
        (ClockInfo(1_000_001, 4, 2, safe=True), {"reset-count-fell"}),
        (ClockInfo(1_000_001, 6, 0, safe=True), {"rebooted"}),
        (ClockInfo(900_000, 6, 0, safe=False), {"rebooted", "clock-unsafe"}),
        (ClockInfo(900_000, 9, 0, safe=False), {"rebooted", "clock-unsafe"}),
        (ClockInfo(1_000_001, 5, 2, safe=False), {"clock-unsafe"}),
        (ClockInfo(500_001 + 2**23, 5, 2, safe=False), {"clock-unsafe-long"}),
    ],
)
def test_what_the_clock_may_do(info, expected):
    assert clock(info) == expected


def test_an_older_firmware(judge):
    assert clock(ClockInfo(1_000_001, 5, 2, safe=True), firmware_version=6) == {"firmware-version-fell"}
    previous = replace(BEFORE, firmware_version=8)
    assert judge(previous=previous).verdict is Verdict.CONTRAINDICATED


def test_a_power_cut_is_no_alarm(judge):
    after_cut = {"tpm": {"clock_info": ClockInfo(900_000, 6, 0, safe=False)}}
    appraisal = judge(previous=BEFORE, **after_cut)
    assert appraisal.verdict is Verdict.AFFIRMING
    assert ids(appraisal) == {"rebooted", "clock-unsafe"}
    assert appraisal.clock_state == ClockState(6, 0, 900_000, 7, 900_000)


def test_a_replayed_state_is_one(judge):
    for change in ({"reset_count": 6}, {"clock": 1_000_001}, {"restart_count": 3}):
        known = replace(BEFORE, **change)
        appraisal = judge(previous=known)
        assert appraisal.verdict is Verdict.CONTRAINDICATED
        assert appraisal.clock_state == known  # what was known stays the measure
    assert judge(previous=BEFORE).verdict is Verdict.AFFIRMING


@given(st.lists(st.sampled_from(["round", "suspend", "reboot", "power-cut"]), max_size=60))
def test_no_honest_history_raises_an_alarm(steps):
    info, previous = ClockInfo(10_000_000, 1, 0, safe=True), None
    for step in steps:
        if step == "round":
            info = replace(info, clock=info.clock + 30_000)
        elif step == "suspend":
            info = replace(info, clock=info.clock + 1, restart_count=info.restart_count + 1)
        elif step == "reboot":
            info = ClockInfo(info.clock + 5_000, info.reset_count + 1, 0, safe=True)
        else:
            info = ClockInfo(max(0, info.clock - 4_000_000), info.reset_count + 1, 0, safe=False)
        quote = VerifiedQuote({}, info, 7)
        found = {finding.id for finding in clock_findings(quote, previous)}
        assert found <= {"rebooted", "clock-unsafe"}
        previous = next_clock_state(quote, previous)


# --- the result -----------------------------------------------------------------------------------------------------


@pytest.fixture
def claims(kit, judge):
    def run(**changes):
        arguments = {
            "issuer": "https://host:8443/attest/v1",
            "audience": "https://host:8443",
            "node": "lamp-7",
            "tenant": "city",
            "jti": "1",
            "nonce": kit.NONCE,
            "node_key_jwk": {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"},
            "appraisal": judge(),
            "reference": kit.make_reference(kit.replay_events(kit.good_events())),
            "standing": "trusted",
            "generation": 3,
            "evidence_sha256": "ab" * 32,
            "now": kit.NOW,
        }
        return ear_claims(**(arguments | changes))

    return run


def test_the_claims_of_a_result(kit, claims, judge):
    made = claims()
    assert made["exp"] - made["iat"] == 600
    assert (made["sub"], made["aud"], made["eat_profile"]) == ("lamp-7", "https://host:8443", EAR_PROFILE)
    assert made["submods"]["node"]["ear.status"] == "affirming"
    assert made["submods"]["node"]["ear.trustworthiness-vector"] == judge().trust_vector
    assert made["cnf"]["jwk"]["crv"] == "P-256"
    assert made["eat_nonce"] == base64.urlsafe_b64encode(kit.NONCE).rstrip(b"=").decode()
    assert made["submods"]["node"]["ear.appraisal-policy-id"] == f"urn:umec:policy:{judge().policy_digest}"
    assert made["umec"] == {
        "tenant": "city",
        "standing": "trusted",
        "generation": 3,
        "evidence_sha256": "ab" * 32,
        "policy_sha256": judge().policy_digest,
        "reference_sha256": kit.make_reference(kit.replay_events(kit.good_events())).sha256,
        "reference_version": 1,
    }


def test_results_that_must_not_be_issued(claims, refused):
    for wrong in (
        {"issuer": ""},
        {"audience": ""},
        {"node": ""},
        {"jti": ""},
        {"nonce": b""},
        {"nonce": bytes(7)},
        {"nonce": bytes(65)},
        {"lifetime": timedelta(minutes=11)},
        {"lifetime": timedelta(0)},
        {"node_key_jwk": {"kty": "EC", "crv": "P-256", "x": "x", "y": "y", "d": "private"}},
        {"node_key_jwk": {"kty": "EC", "crv": "P-384", "x": "x", "y": "y"}},
        {"node_key_jwk": {}},
    ):
        with refused("ear-invalid"):
            claims(**wrong)
