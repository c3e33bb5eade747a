"""Which part of a boot is another one: told in words, by logs of real boots and of images that differ in one part."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.appraisal import judge_boot
from umec_attest.appraisal.stages import difference
from umec_attest.bootlog import parse_boot_log, verify_boot_log
from umec_attest.predict.measure import boot_applications, configuration, secure_boot, values_of
from umec_attest.predict.ovmf import UNTOUCHED
from umec_attest.predict.stub import UKI_SECTIONS, kernel, sections
from umec_attest.predict.uefi import IMAGE_SECURITY_DATABASE, first_signature, variable_data
from umec_attest.reference import Stage, extend_all, parse_draft, render_stages
from umec_attest.reference.values import render_values

FOLDER = Path(__file__).with_name("real_boots")
KERNEL = b"LOADED_IMAGE::LoadOptions\0Linux initrd\0"
ASKED = (*range(8), 9, 11, 12, 14)
SECTION = {".linux": "kernel", ".osrel": "name and version", ".cmdline": "command line", ".initrd": "initrd"}


def image_of(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def stages_of(image):
    """What a boot of an image measures, by what the image consists of."""
    variables = {name: bytes.fromhex(value) for name, value in image["variables"].items()}
    digests = {name: bytes.fromhex(image["sections"][name]) for name in UKI_SECTIONS}
    authority = variable_data(IMAGE_SECURITY_DATABASE, "db", first_signature(variables["db"]))
    return {pcr: [] for pcr in UNTOUCHED if pcr in ASKED} | {
        4: boot_applications([bytes.fromhex(image["authenticode_sha256"])]),
        7: secure_boot(configuration(variables), [authority]),
        9: kernel(KERNEL, image["command_line"], digests[".initrd"]),
        11: sections(digests),
    }


@pytest.fixture
def told(kit, tpm):
    """What is found where the boot of that log is judged by that image: stages and details by PCR."""

    def run(name, image, *, stages=None):
        booted = {int(pcr): bytes.fromhex(value) for pcr, value in image_of(name)["pcrs"].items()}
        quote = tpm.quote_of({pcr: booted[pcr] for pcr in ASKED})
        expected = stages_of(image)
        pcrs = {kit.SHA256: {pcr: [value] for pcr, value in values_of(expected).items()}}
        free = dict.fromkeys((0, 1, 2, 3, 5, 6), "of the firmware")
        reference = kit.make_reference({}, pcrs=pcrs, ignored=free, stages=expected if stages is None else stages)
        judged = judge_boot(
            quote, verify_boot_log(parse_boot_log((FOLDER / f"{name}.bin").read_bytes()), quote), reference
        )
        findings = [item.finding for item in judged.findings]
        assert {finding.id for finding in findings} <= {"pcr-unexpected"}
        return {int(each.detail.split()[1]): (tuple(each.stages), each.detail) for each in findings}

    return run


@pytest.mark.parametrize("section", UKI_SECTIONS)
def test_a_changed_section_is_named(told, section):
    image = image_of("built")
    assert told("built", image) == {}
    found = told("built", image | {"sections": image["sections"] | {section: "ab" * 32}})
    assert found[11][0] == (SECTION[section],)
    assert found[11][1].endswith(f": not that of the image: {SECTION[section]}")
    assert set(found) == ({9, 11} if section == ".initrd" else {11})


@pytest.mark.parametrize(
    ("member", "change", "pcr", "stage"),
    [
        ("command_line", "ro init=/bin/sh", 9, "command line"),
        ("authenticode_sha256", "ab" * 32, 4, "kernel image"),
        *(("variables", {name: "00"}, 7, name) for name in ("SecureBoot", "PK", "KEK", "dbx")),
    ],
)
def test_another_kernel_image_or_firmware_variable_is_named(told, member, change, pcr, stage):
    image = image_of("built")
    other = image[member] | change if isinstance(change, dict) else change
    found = told("built", image | {member: other})
    assert {pcr: stages for pcr, (stages, _) in found.items()} == {pcr: (stage,)}


def test_an_image_of_somebody_else_is_named_by_what_its_owner_s_is_not(told):
    found = told("sbsign", image_of("built"))
    assert {pcr: set(stages) for pcr, (stages, _) in found.items()} == {
        4: {"kernel image"},
        7: {"PK", "KEK", "db", "dbx", "signer of the kernel image"},
        9: {"command line", "initrd"},
        11: {"name and version", "command line", "initrd"},
    }


def test_what_is_measured_beside_the_image_is_counted(told):
    image = image_of("addons")
    found = told("addons", image)
    assert found[12] == ((), found[12][1])
    assert "measured beside what the image measures: " in found[12][1]


def test_a_set_that_does_not_know_the_stages_names_the_pcr(told):
    image = image_of("built")
    found = told("built", image | {"command_line": "ro init=/bin/sh"}, stages={})
    assert found == {9: ((), "PCR 9 (sha256) is not what edge version 1 gives")}


@pytest.mark.parametrize("fault", ["another value", "another PCR", "an order", "too many"])
def test_stages_that_do_not_give_the_value_are_refused(kit, refused, fault):
    listed = stages_of(image_of("built"))[11]
    stages, pcrs = {11: listed}, {kit.SHA256: {11: [extend_all(stage.digest for stage in listed)], 4: [bytes(32)]}}
    kit.make_reference({}, pcrs=pcrs, stages=stages)
    if fault == "another value":
        stages = {11: [listed[0]._replace(digest=bytes(32)), *listed[1:]]}
    elif fault == "another PCR":
        stages = {4: listed}
    elif fault == "an order":
        stages = {11: listed[::-1]}
    else:
        stages = {11: [Stage("kernel", bytes(32))] * 65}
        pcrs[kit.SHA256][11] = [extend_all(bytes(32) for _ in range(65))]
    with refused("reference-invalid"):
        kit.make_reference({}, pcrs=pcrs, stages=stages)


def test_a_draft_keeps_the_stages(kit, refused):
    stages = {pcr: tuple(listed) for pcr, listed in stages_of(image_of("built")).items()}
    pcrs = {kit.SHA256: {pcr: [value] for pcr, value in values_of(stages).items()}}
    text = {"pcrs": render_values(pcrs), "stages": render_stages(stages)}
    assert parse_draft(json.dumps(text).encode()).stages == stages
    text["pcrs"]["sha256"]["4"] = ["ab" * 32]
    with refused("reference-invalid"):
        parse_draft(json.dumps(text).encode())


NAMES = st.sampled_from(["kernel", "initrd", "command line"])
STAGE = st.builds(Stage, NAMES, st.integers(0, 3).map(lambda number: hashlib.sha256(bytes([number])).digest()))


@given(expected=st.lists(STAGE, max_size=6), found=st.lists(STAGE, max_size=6))
def test_any_two_lists_are_told_apart_in_words(expected, found):
    told = difference(expected, [stage.digest for stage in found])
    assert told.text
    assert set(told.changed) <= {stage.name for stage in expected}
    same = {stage.digest for stage in expected} == {stage.digest for stage in found}
    assert same == (not told.changed and not told.strange)


def test_each_way_in_which_two_lists_differ_has_its_words():
    one, two = Stage("kernel", bytes(32)), Stage("initrd", b"\1" * 32)
    words = [
        difference([one, two], [one.digest, b"\2" * 32]),
        difference([one, two], [one.digest]),
        difference([one], [one.digest, two.digest]),
        difference([one, two], [two.digest, one.digest]),
    ]
    assert [each.text for each in words] == [
        "not that of the image: initrd",
        "not measured: initrd",
        "measured beside what the image measures: 1",
        "the image's measurements, in another order or more than once",
    ]
