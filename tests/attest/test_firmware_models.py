"""Firmware builds of a reference set: which one a node is, and which of its quirks are excused, never silently."""

import hashlib
import json

import pytest

from umec_attest.appraisal import Verdict, appraise
from umec_attest.bootlog import parse_boot_log, verify_boot_log
from umec_attest.bootlog.quirks import EXCUSABLE
from umec_attest.reference import PREDICATE_TYPE, FirmwareModel, match_model, verify_reference_set
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_core import dsse
from umec_policies import load_default

QUIRK = "boot-application-early"


@pytest.fixture
def boot(kit):
    """The events of a board with some firmware; with `early`, it has a quirk."""

    def run(firmware=b"firmware", option_roms=b"", *, early=False):
        events = kit.good_events()
        events[1].digest = hashlib.sha256(firmware).digest()
        if option_roms:
            events.insert(2, kit.Event(2, "BLOB", bytes(16), hashlib.sha256(option_roms).digest()))
        if early:
            events.insert(0, kit.Event(4, "APPLICATION", b"path", hashlib.sha256(b"vendor's").digest()))
        return events

    return run


@pytest.fixture
def model(kit):
    def run(events, excused=None, pcrs=(0, 2)):
        values = kit.replay_events(events)
        return FirmwareModel({kit.SHA256: {pcr: frozenset({values[pcr]}) for pcr in pcrs}}, excused or {})

    return run


@pytest.fixture
def judge(kit, tpm, boot):
    """Appraise a board against a set whose `models` say what the firmware PCRs 0 and 2 may be."""

    def run(events, models, expected=None):
        quote = tpm.quote_of(kit.replay_events(events))
        log = verify_boot_log(parse_boot_log(kit.write_log(events)), quote)
        values = kit.replay_events(boot() if expected is None else expected)
        common = {pcr: [value] for pcr, value in values.items() if pcr not in {0, 2}}
        return appraise(
            node="lamp-7",
            quote=quote,
            log=log,
            reference=kit.make_reference({}, pcrs={kit.SHA256: common}, models=models),
            policies=load_default("appraisal"),
            previous=None,
            now=kit.NOW,
        )

    return run


def ids(appraisal):
    return [finding.id for finding in appraisal.findings]


def test_each_known_build_is_good_and_named(boot, model, judge):
    builds = {"lamp-1.0": boot(), "lamp-1.1": boot(b"firmware 1.1", b"roms")}
    models = {name: model(events) for name, events in builds.items()}
    for name, events in builds.items():
        appraisal = judge(events, models)
        assert (appraisal.verdict, ids(appraisal)) == (Verdict.AFFIRMING, [])
        assert (appraisal.facts["firmware_model"], appraisal.facts["excused"]) == (name, 0)


def test_another_firmware_is_told_with_the_builds_that_are_known(kit, boot, model, judge):
    known = {"lamp-1.0": boot(), "lamp-1.1": boot(b"firmware 1.1")}
    appraisal = judge(boot(b"implant"), {name: model(events) for name, events in known.items()})
    assert (appraisal.verdict, ids(appraisal)) == (Verdict.CONTRAINDICATED, ["pcr-unexpected"])
    (finding,) = appraisal.findings
    values = {name: kit.replay_events(events)[0].hex() for name, events in known.items()}
    assert sorted(finding.expected.split(" or ")) == sorted(f"{values[name]} ({name})" for name in known)
    assert finding.found == kit.replay_events(boot(b"implant"))[0].hex()
    assert appraisal.facts["firmware_model"] == ""
    assert appraisal.trust_vector["hardware"] == 96


def test_a_value_that_two_builds_share_names_both(kit, boot, model, judge):
    known = {"lamp-1.0": boot(), "lamp-1.1": boot(b"firmware 1.1")}
    appraisal = judge(boot(option_roms=b"implant"), {name: model(events) for name, events in known.items()})
    (finding,) = appraisal.findings
    assert finding.expected == f"{kit.replay_events(boot())[2].hex()} (lamp-1.0, lamp-1.1)"


def test_parts_of_two_builds_are_none(boot, model, judge):
    models = {"lamp-1.0": model(boot()), "lamp-1.1": model(boot(b"firmware 1.1", b"roms"))}
    mixed = judge(boot(b"firmware 1.1"), models)
    assert (mixed.verdict, ids(mixed)) == (Verdict.CONTRAINDICATED, ["pcr-model-mixed"])
    assert mixed.facts["pcrs_match"] is False
    assert mixed.trust_vector["hardware"] == 96
    good = judge(boot(b"firmware 1.1", b"roms"), models)
    assert good.verdict is Verdict.AFFIRMING


def test_a_firmware_pcr_that_was_not_quoted(kit, boot, model, judge):
    elsewhere = FirmwareModel({kit.SHA256: {**model(boot()).pcrs[kit.SHA256], 13: frozenset({bytes(32)})}}, {})
    appraisal = judge(boot(), {"lamp-1.0": elsewhere})
    assert (appraisal.verdict, ids(appraisal)) == (Verdict.CONTRAINDICATED, ["pcr-not-quoted"])


def test_a_quirk_counts_unless_it_is_excused_for_this_very_build(boot, model, judge):
    early = boot(early=True)
    found = judge(early, {"lamp-1.0": model(early)}, expected=early)
    assert (found.verdict, ids(found)) == (Verdict.WARNING, [QUIRK])
    excused = {QUIRK: "the vendor's splash screen"}
    told = judge(early, {"lamp-1.0": model(early, excused)}, expected=early)
    assert (told.verdict, ids(told)) == (Verdict.AFFIRMING, ["excused"])
    assert told.facts["excused"] == 1
    assert told.trust_vector == judge(boot(), {"lamp-1.0": model(boot())}).trust_vector
    (finding,) = told.findings
    assert finding.detail.startswith(f"{QUIRK} on lamp-1.0: the vendor's splash screen (PCR 4: ")
    models = {"lamp-1.0": model(boot(b"other"), excused), "lamp-1.1": model(early)}
    other = judge(early, models, expected=early)
    assert (other.verdict, ids(other)) == (Verdict.WARNING, [QUIRK])


def test_nothing_is_excused_for_values_of_no_build(boot, model, judge):
    models = {"lamp-1.0": model(boot(b"other"), {QUIRK: "the vendor's splash screen"})}
    found = judge(boot(early=True), models, expected=boot(early=True))
    assert ids(found) == [QUIRK, "pcr-unexpected"]


# --- what a reference set may say ------------------------------------------------------------------------------------


@pytest.fixture
def verify(kit):
    def run(models, **predicate):
        members = {
            "version": 3,
            "issued": "2034-11-22T12:00:00Z",
            "expires": "2034-12-22T12:00:00Z",
            "pcrs": {"sha256": {"4": ["ab" * 32]}},
            "models": models,
        }
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "edge", "digest": {"sha256": "cd" * 32}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": members | predicate,
        }
        envelope = dsse.sign(json.dumps(statement).encode(), dsse.IN_TOTO, kit.reference_key())
        signers = [kit.reference_key().public_key()]
        return verify_reference_set(envelope, signers=signers, now=kit.NOW, minimum_version=0)

    return run


def build(firmware="00", roms="22", **members):
    return {"pcrs": {"sha256": {"0": [firmware * 32], "2": [roms * 32]}}, **members}


def test_good_models(verify):
    reference = verify({"a-1.0": build(), "B_2": build("01", excused={QUIRK: "why"})})
    assert reference.models["B_2"].excused == {QUIRK: "why"}
    quoted = {HashAlgorithm.SHA256: {0: b"\x01" * 32, 2: b"\x22" * 32, 4: b"\xab" * 32}}
    assert match_model(reference.models, quoted) == "B_2"
    assert match_model(reference.models, {HashAlgorithm.SHA256: {0: b"\x01" * 32}}) is None
    assert match_model(reference.models, {}) is None
    assert verify({}).models == {}


@pytest.mark.parametrize(
    ("models", "code"),
    [
        ({"a": build(), "b": build()}, "reference-invalid"),  # nobody could say which
        ({"a": build(), "b": {"pcrs": {"sha256": {"0": ["01" * 32]}}}}, "reference-invalid"),  # b says less
        ({"a": {"pcrs": {"sha256": {"2": ["22" * 32]}}}}, "reference-invalid"),  # of any firmware
        ({"a": {"pcrs": {"sha256": {"0": ["00" * 32]}, "sha384": {"2": ["22" * 48]}}}}, "reference-invalid"),
        ({"a": {"pcrs": {"sha256": {"0": ["00" * 32], "4": ["ab" * 32]}}}}, "reference-invalid"),  # expected of all
        ({"a": {"pcrs": {}}}, "reference-empty"),
        ({"a": {"pcrs": {"sha256": {"0": []}}}}, "reference-empty"),
        ({"a": build(excused={"pcr-unexpected": "why"})}, "reference-invalid"),
        ({"a": build(excused={"secure-boot-off": "why"})}, "reference-invalid"),
        ({"a": build(excused={QUIRK: ""})}, "reference-invalid"),
        ({"a": build(unknown=1)}, "reference-invalid"),
        ({"": build()}, "reference-invalid"),
        ({"a\nb": build()}, "reference-invalid"),
        ({"a\n": build()}, "reference-invalid"),
    ],
)
def test_one_fault_in_the_models(verify, refused, models, code):
    with refused(code):
        verify(models)


def test_two_builds_with_one_value_in_common_are_told_apart_by_the_other(verify, refused):
    assert set(verify({"a": build(), "b": build(roms="23")}).models) == {"a", "b"}
    twice = {"pcrs": {"sha256": {"0": ["00" * 32, "01" * 32], "2": ["22" * 32]}}}
    with refused("reference-invalid"):
        verify({"a": build("01"), "b": twice})


def test_a_pcr_has_one_meaning(verify, refused):
    with refused("reference-invalid"):
        verify({"a": build()}, ignored={"2": "option ROMs"})
    verify({"a": build()}, ignored={"3": "option ROMs"})


def test_only_quirks_of_firmware_can_be_excused(verify):
    for identifier in EXCUSABLE:
        assert verify({"a": build(excused={identifier: "why"})}).models["a"].excused == {identifier: "why"}


def test_what_was_signed_is_what_was_meant(kit, boot, model):
    models = {"lamp-1.0": model(boot(), {QUIRK: "why"}), "lamp-1.1": model(boot(b"1.1"))}
    reference = kit.make_reference({4: bytes(32)}, models=models)
    assert dict(reference.models) == models
