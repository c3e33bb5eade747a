"""Logs of real boots: what their images consist of predicts their PCRs, and a verifier finds nothing wrong."""

import hashlib
import json
from pathlib import Path

import pytest

from umec_attest.appraisal import Verdict, appraise
from umec_attest.bootlog import parse_boot_log, verify_boot_log
from umec_attest.predict import PredictedPcrs, draft_of
from umec_attest.predict.builds import builds_for
from umec_attest.predict.measure import boot_applications, configuration, secure_boot, values_of
from umec_attest.predict.ovmf import IGNORED, UNTOUCHED
from umec_attest.predict.stub import UKI_SECTIONS, kernel, sections
from umec_attest.predict.uefi import IMAGE_SECURITY_DATABASE, first_signature, variable_data
from umec_policies import load_default

FOLDER = Path(__file__).with_name("real_boots")
NAMES = ("built", "sbsign")
KERNEL = b"LOADED_IMAGE::LoadOptions\0Linux initrd\0"
BUILD = "OVMF 2022.11-6+deb12u2 secboot (q35 1 GiB 2 CPUs no S3)"
ASKED = (*range(8), 9, 11, 12, 14)


def image_of(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def predicted(image):
    variables = {name: bytes.fromhex(value) for name, value in image["variables"].items()}
    digests = {name: bytes.fromhex(image["sections"][name]) for name in UKI_SECTIONS}
    authority = variable_data(IMAGE_SECURITY_DATABASE, "db", first_signature(variables["db"]))
    stages = {
        4: boot_applications([bytes.fromhex(image["authenticode_sha256"])]),
        7: secure_boot(configuration(variables), [authority]),
        9: kernel(KERNEL, image["command_line"], digests[".initrd"]),
        11: sections(digests),
    }
    pcrs = dict.fromkeys(UNTOUCHED, bytes(32)) | values_of(stages)
    return PredictedPcrs(pcrs, "cd" * 32, builds_for(image["code_sha256"], []), IGNORED)


@pytest.fixture
def judge(kit, tpm):
    def run(name, image):
        """Appraise the boot of that log against what is predicted for that image."""
        booted = {int(pcr): bytes.fromhex(value) for pcr, value in image_of(name)["pcrs"].items()}
        quote = tpm.quote_of({pcr: booted[pcr] for pcr in ASKED})
        draft = draft_of(predicted(image), None)
        reference = kit.make_reference({}, pcrs=draft.pcrs, ignored=draft.ignored, models=draft.models)
        return appraise(
            node="lamp-7",
            quote=quote,
            log=verify_boot_log(parse_boot_log((FOLDER / f"{name}.bin").read_bytes()), quote),
            reference=reference,
            policies=load_default("appraisal"),
            previous=None,
            now=kit.NOW,
        )

    return run


@pytest.mark.parametrize("name", NAMES)
def test_every_predicted_pcr_is_that_of_the_boot(name):
    image = image_of(name)
    found, booted = predicted(image), image["pcrs"]
    assert {str(pcr): value.hex() for pcr, value in found.pcrs.items()} == {
        str(pcr): booted[str(pcr)] for pcr in found.pcrs
    }
    assert {str(pcr): value.hex() for pcr, value in found.models[BUILD].items()} == {
        str(pcr): booted[str(pcr)] for pcr in (0, 2, 3, 6)
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_verifier_trusts_it(judge, name):
    image = image_of(name)
    appraisal = judge(name, image)
    assert (appraisal.verdict, appraisal.findings) == (Verdict.AFFIRMING, ())
    facts = appraisal.boot_facts
    assert appraisal.facts["firmware_model"] == BUILD
    assert facts.secure_boot is True
    assert facts.boot_applications == (image["authenticode_sha256"],)
    assert dict(facts.uki_sections) == image["sections"]
    assert [authority.in_db for authority in facts.boot_authorities] == [True]
    assert (facts.command_lines, facts.driver_authorities, facts.drivers) == ((), (), ())
    db = bytes.fromhex(image["variables"]["db"])
    assert facts.variables["db"] == hashlib.sha256(db).hexdigest()


@pytest.mark.parametrize(
    ("member", "change", "missed"),
    [
        ("command_line", "ro init=/bin/sh", {"9"}),
        ("authenticode_sha256", "ab" * 32, {"4"}),
        ("sections", dict.fromkeys(UKI_SECTIONS, "ab" * 32), {"9", "11"}),
        ("sections", {".linux": "ab" * 32}, {"11"}),
        ("variables", {"SecureBoot": "00"}, {"7"}),
        ("variables", {"dbx": "00"}, {"7"}),
    ],
)
def test_another_image_is_not_trusted_by_it(judge, member, change, missed):
    image = image_of("built")
    other = image[member] | change if isinstance(change, dict) else change
    appraisal = judge("built", image | {member: other})
    assert appraisal.verdict is Verdict.CONTRAINDICATED
    assert {finding.id for finding in appraisal.findings} == {"pcr-unexpected"}
    assert {finding.detail.split()[1] for finding in appraisal.findings} == missed
    assert judge("built", image).verdict is Verdict.AFFIRMING


def test_what_somebody_put_beside_the_image_is_not_trusted(judge):
    image = image_of("addons")
    found = judge("addons", image)
    assert found.verdict is Verdict.CONTRAINDICATED
    assert [finding.detail.split()[1] for finding in found.findings if finding.id == "pcr-unexpected"] == ["9", "12"]
    booted = {pcr for pcr, value in predicted(image).pcrs.items() if image["pcrs"][str(pcr)] != value.hex()}
    assert booted == {9, 12, 13}


def test_what_a_draft_of_it_says(refused):
    found = predicted(image_of("built"))
    (bank,) = draft_of(found, None).pcrs.values()
    assert set(bank) == {4, 7, 9, 11, 12, 14}
    (bank,) = draft_of(found, None, [13, 15]).pcrs.values()
    assert set(bank) == {4, 7, 9, 11, 12, 13, 14, 15}
    draft = draft_of(found, {"files": {"/init": ["ab" * 32]}})
    (bank,) = draft.pcrs.values()
    assert set(bank) == {4, 7, 8, 9, 11, 12, 14}
    assert bank[8] == {bytes(32)}
    assert draft.runtime.to_json()["files"] == {"/init": ["ab" * 32]}
    assert (draft.image_sha256, draft.ignored) == ("cd" * 32, IGNORED)
    with refused("reference-invalid"):
        draft_of(found, None, [4, 13])
