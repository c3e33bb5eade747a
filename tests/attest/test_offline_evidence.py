"""Evidence folders with all that a node can tell: boot log, systemd's log, and the list of what ran since the boot."""

import hashlib
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from umec_attest.ima import parse_ima, parse_runtime_policy
from umec_attest.offline import EvidencePieces, check_consistency, judge_evidence
from umec_attest.reference import FirmwareModel, Grace, sign_reference_set
from umec_attest.starts.decisions import NO_DECISIONS, DecisionRules
from umec_attest.starts.entry import StartEntry, extended
from umec_attest.testing.runtime import RuntimeList, measured
from umec_attest.tpm.attest import parse_attest
from umec_core.clock import system_clock
from umec_core.jose import KeySet, sign_jwt
from umec_platform.cli import evidence
from umec_policies import load_default

FILES = {"/usr/bin/tool": b"tool", "/usr/lib/libtool.so": b"library"}
POLICY = parse_runtime_policy({"files": {path: [hashlib.sha256(text).hexdigest()] for path, text in FILES.items()}})


@pytest.fixture
def boot(kit):
    """PCRs 0 to 9 and the others of a good boot, as a node with IMA quotes them."""
    return dict.fromkeys(range(10), bytes(32)) | kit.replay_events(kit.good_events())


@pytest.fixture
def ran(boot):
    return RuntimeList.of(boot, FILES.items())


@pytest.fixture
def pieces(kit, tpm, boot, ran):
    """Good evidence; `more` are PCRs beside those of the boot, `changes` replace pieces."""

    def run(more=None, **changes):
        values = boot | {10: ran.pcr} | (more or {})
        values = {pcr: value for pcr, value in values.items() if value is not None}
        mine = replace(tpm, selection=type(tpm.selection).from_mapping({"sha256": sorted(values)}))
        attest = mine.attest({kit.SHA256: values}).to_bytes()
        pcrs = json.dumps({"sha256": {str(n): value.hex() for n, value in values.items()}}).encode()
        made = EvidencePieces(
            attest,
            tpm.sign(attest),
            pcrs,
            ak=tpm.ak.to_bytes(),
            ak_parent=tpm.ek.to_bytes(),
            nonce=kit.NONCE,
            boot_log=kit.write_log(kit.good_events()),
            ima=ran.data,
        )
        return replace(made, **changes)

    return run


@pytest.fixture
def judge(kit, tpm, boot):
    def run(made, decisions=NO_DECISIONS, **reference):
        arguments = {"runtime": POLICY} | reference
        expected = boot | arguments.pop("values", {})
        return judge_evidence(
            made,
            node="offline",
            ak=tpm.ak,
            ak_parent=None,
            nonce=kit.NONCE,
            reference=kit.make_reference(expected, **arguments),
            policies=load_default("appraisal"),
            now=kit.NOW,
            decisions=decisions,
        )

    return run


def said(appraisal):
    return appraisal.verdict.value, [finding.id for finding in appraisal.findings]


# --- what ran --------------------------------------------------------------------------------------------------------


def test_what_ran_is_appraised(judge, pieces):
    appraisal = judge(pieces())
    assert said(appraisal) == ("affirming", [])
    assert appraisal.trust_vector["file-system"] == 2


def test_without_the_list_nothing_is_judged(judge, pieces, refused):
    with refused("evidence-incomplete"):
        judge(pieces(ima=None))
    with refused("evidence-incomplete"):
        judge(pieces({10: None}))  # PCR 10 was not quoted
    with refused("evidence-incomplete"):
        judge(pieces(), runtime=None, ignored={10: "no IMA"})  # nothing judges the list
    unasked = judge(pieces(ima=None), runtime=None, ignored={10: "no IMA"})
    assert said(unasked) == ("affirming", [])


def test_a_program_of_no_list(judge, pieces, ran):
    ran.add(measured("/tmp/implant", bytes(32)))  # noqa: S108 - the path of a file that an attacker ran
    appraisal = judge(pieces())
    assert said(appraisal) == ("contraindicated", ["ima-file-unknown"])
    assert "/tmp/implant" in appraisal.findings[0].detail  # noqa: S108
    assert appraisal.trust_vector["file-system"] == 96


def test_a_list_that_does_not_hold(judge, pieces, ran):
    for broken, finding in (
        (b"".join(ran.entries[:-1]), "ima-replay-mismatch"),
        (b"", "ima-replay-mismatch"),
        (ran.data[:-1], "ima-invalid"),
    ):
        assert said(judge(pieces(ima=broken))) == ("contraindicated", [finding])


def test_the_command_reads_either_form_of_the_list_and_never_two(kit, pieces, ran, boot, tmp_path):
    where = tmp_path / "evidence"
    where.mkdir()
    files = {"quote": "quote.bin", "signature": "signature.bin", "pcrs": "pcrs.json", "boot_log": "bootlog.bin"}
    made = pieces()
    for member, name in (files | {"ima": "ima.bin", "ak_parent": "ak_parent.pub"}).items():
        (where / name).write_bytes(getattr(made, member))
    (tmp_path / "ak.pub").write_bytes(made.ak)
    key = kit.reference_key()
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "signer.pem").write_bytes(pem)
    write_reference(tmp_path / "set.json", kit, boot)
    options = ["--ak", tmp_path / "ak.pub", "--nonce", kit.NONCE.hex(), "--reference", tmp_path / "set.json"]
    options += ["--signer", tmp_path / "signer.pem", "--policy", "default", "--json"]

    def verify():
        answer = CliRunner().invoke(evidence.app, ["verify", str(where), *map(str, options)])
        shown = json.loads(answer.stdout)
        return answer.exit_code, shown.get("verdict", shown.get("code"))

    assert verify() == (0, "affirming")
    (where / "ima.txt").write_bytes(text_of(ran))
    assert verify() == (1, "evidence-incomplete")
    (where / "ima.bin").unlink()
    assert verify() == (0, "affirming")
    (where / "ima.txt").unlink()
    assert verify() == (1, "evidence-incomplete")


def write_reference(path, kit, values):
    now = system_clock().replace(microsecond=0)
    path.write_bytes(
        sign_reference_set(
            name="edge",
            subject_sha256="ab" * 32,
            version=1,
            issued=now,
            expires=now.replace(year=now.year + 1),
            pcrs={kit.SHA256: {pcr: [value] for pcr, value in values.items()}},
            ignored={},
            key=kit.reference_key(),
            runtime=POLICY,
        )
    )


def text_of(ran):
    return b"".join(
        b"10 %s ima-ng sha256:%s %s\n"
        % (one.template_hash.hex().encode(), one.fields[0][8:].hex().encode(), one.fields[1][:-1])
        for one in parse_ima(ran.data)
    )


# --- systemd's log ---------------------------------------------------------------------------------------------------

PHASE = b"enter-initrd"


@pytest.fixture
def phase(boot):
    """A record of systemd's log, and PCR 11 after it."""
    digest = hashlib.sha256(PHASE).digest()
    value = {"pcr": 11, "digests": [{"hashAlg": "sha256", "digest": digest.hex()}], "content_type": "systemd"}
    value["content"] = {"string": PHASE.decode(), "bootId": "ab" * 16, "timestamp": 1, "eventType": "phase"}
    return b"\x1e" + json.dumps(value).encode() + b"\n", hashlib.sha256(boot[11] + digest).digest()


def test_systemds_log_goes_on_where_the_boot_log_ends(judge, pieces, phase):
    record, after = phase
    good = pieces({11: after}, userspace=record)
    assert said(judge(good, values={11: after})) == ("affirming", [])
    without = judge(replace(good, userspace=None), values={11: after})
    assert said(without) == ("contraindicated", ["bootlog-replay-mismatch"])
    broken = judge(replace(good, userspace=record[:-2]), values={11: after})
    assert said(broken) == ("contraindicated", ["userspace-log-invalid"])


def test_systemds_log_is_checked_structurally(pieces, phase, refused):
    record, after = phase
    good = pieces({11: after}, userspace=record)
    assert check_consistency(good).checked[-3:] == ("boot-log", "userspace-log", "ima")
    assert check_consistency(pieces()).checked[-2:] == ("boot-log", "ima")
    with refused("bootlog-replay-mismatch"):
        check_consistency(replace(good, userspace=None))
    with refused("userspace-log-invalid"):
        check_consistency(replace(good, userspace=record[:-2]))
    with refused("evidence-incomplete"):
        check_consistency(replace(good, boot_log=None))


# --- quirks of the form ----------------------------------------------------------------------------------------------


def test_a_log_that_cannot_be_read_is_excused_for_its_firmware_only(kit, judge, pieces, boot):
    quirk = "spec-id-vendor-info-size"
    odd = pieces(boot_log=kit.write_log(kit.good_events(), kit.spec_id(tail=b"\x04") + b"vend"))
    rest = {kit.SHA256: {pcr: [value] for pcr, value in boot.items() if pcr}}
    build = {kit.SHA256: {0: frozenset({boot[0]})}}
    other = {kit.SHA256: {0: frozenset({bytes(32)})}}
    excused = judge(odd, pcrs=rest, models={"lamp": FirmwareModel(build, {quirk: "the vendor counts wrongly"})})
    assert said(excused) == ("affirming", ["excused"])
    plain = judge(odd, pcrs=rest, models={"lamp": FirmwareModel(build, {})})
    assert said(plain) == ("contraindicated", ["bootlog-vendor-info-size"])
    both = {"lamp": FirmwareModel(build, {}), "other": FirmwareModel(other, {quirk: "the vendor counts wrongly"})}
    assert said(judge(odd, pcrs=rest, models=both)) == ("contraindicated", ["bootlog-vendor-info-size"])
    assert said(judge(odd)) == ("contraindicated", ["bootlog-vendor-info-size"])


def test_a_list_in_a_folder_ends_where_the_quote_was_made(pieces, ran, refused):
    assert check_consistency(pieces()).ima_entries == len(ran.entries)
    for entries in ((*ran.entries, ran.entries[-1]), ran.entries[:-1]):
        with refused("ima-replay-mismatch"):
            check_consistency(pieces(ima=b"".join(entries)))


# --- versions of the image -------------------------------------------------------------------------------------------


def test_an_older_version_counts_offline_for_as_long_as_the_newer_one_says(kit, tpm, boot, pieces, refused):
    other = boot | {11: b"\x0b" * 32}
    grace = Grace(1, kit.NOW + timedelta(hours=1))

    def made(version, values, **changes):
        return kit.make_reference(values, version=version, runtime=POLICY, **changes)

    def judged(newest, *older, now=kit.NOW):
        return judge_evidence(
            pieces(),
            node="offline",
            ak=tpm.ak,
            ak_parent=None,
            nonce=kit.NONCE,
            reference=newest,
            policies=load_default("appraisal"),
            now=now,
            older=older,
        )

    first, second = made(1, boot), made(2, other, grace=grace)
    good = judged(second, first)
    assert said(good) == ("affirming", [])
    assert good.facts["reference_version"] == 1
    assert said(judged(second)) == ("contraindicated", ["pcr-unexpected"])
    late = judged(second, first, now=kit.NOW + timedelta(hours=1))
    assert said(late) == ("contraindicated", ["pcr-unexpected", "version-outdated"])
    assert late.facts["reference_version"] == 2
    assert said(judged(made(2, other), first)) == ("contraindicated", ["pcr-unexpected", "version-outdated"])
    assert said(judged(made(2, boot), first)) == ("affirming", [])  # of the same values the newest counts
    for older in ([second], [made(3, boot)], [made(1, boot, name="another")], [first, made(1, other)]):
        with refused("reference-invalid"):
            judged(second, *older)


@pytest.fixture
def started(kit):
    """What a host started, and what judges it: one start that the site decided, and PCR 15 after it."""
    key, who = ec.generate_private_key(ec.SECP256R1()), {"node": "offline", "tenant": "acme", "instance": "cam-1"}
    now, image = int(kit.NOW.timestamp()), "sha256:" + "ab" * 32
    claims = {"iss": "the platform", "iat": now, "exp": now + 120, "digest": image, **who}
    decision = sign_jwt(claims, key, typ="umec-admission+jwt")
    log = StartEntry(boot=3, number=0, time=now, image=image, decision=decision, **who)
    return log, DecisionRules(KeySet([key.public_key()]), "the platform")


def test_starts_of_applications_are_judged(judge, pieces, started, refused):
    quoted_boot = parse_attest(pieces().quote).clock_info.reset_count
    entry, rules = replace(started[0], boot=quoted_boot), started[1]
    line = entry.to_bytes()
    value = extended(bytes(32), line)
    host = pieces(more={15: value}, starts=line + b"\n")
    judged = judge(host, starts=True, decisions=rules)
    assert said(judged) == ("affirming", [])
    assert check_consistency(host).starts == 1
    # nothing was started
    assert said(judge(pieces(more={15: bytes(32)}), starts=True, decisions=rules)) == ("affirming", [])
    # by whom nobody knows; it is gone; it is another; nobody judges it; it was not quoted
    assert said(judge(host, starts=True)) == ("contraindicated", ["start-undecided"])
    assert said(judge(replace(host, starts=None), starts=True)) == ("contraindicated", ["start-log-missing"])
    other = replace(host, starts=line.replace(b"acme", b"city") + b"\n")
    assert said(judge(other, starts=True, decisions=rules)) == ("contraindicated", ["start-log-mismatch"])
    with refused("start-log-mismatch"):
        check_consistency(other)
    with refused("evidence-incomplete"):
        judge(pieces(starts=line + b"\n"))
    with refused("evidence-incomplete"):
        judge(pieces(), starts=True, decisions=rules)
