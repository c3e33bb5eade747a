"""Built node images: what is missing, unsigned or unknown is not predicted; the same image without that fault is."""

import datetime as dt
import hashlib
import json
import struct
import subprocess
import uuid
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder
from typer.testing import CliRunner

from umec_attest.errors import ImageFolderInvalid, ReferenceInvalid
from umec_attest.predict import builds, parse_builds, predict, predict_started, render_builds
from umec_attest.predict.measure import boot_applications, extend_all, values_of
from umec_attest.predict.measure import secure_boot as measured_secure_boot
from umec_attest.predict.ovmf import IGNORED
from umec_attest.predict.pe import parse_pe
from umec_attest.predict.uefi import first_signature, signatures, variable_data
from umec_attest.reference import parse_draft, read_reference_set
from umec_attest.testing.pe import make_pe
from umec_core.keys import load_or_create_key
from umec_platform.cli import nodeimage

GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
SECURITY = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
SHA256 = uuid.UUID("c1c41626-504c-4092-aca9-41f936934328")
OWNER = uuid.UUID("77fa9abd-0359-4d32-bd60-28f4e78f784b")
CODE = "ab" * 32
VALUES = {"0": "00" * 32, "2": "22" * 32, "3": "33" * 32, "6": "66" * 32}
TABLE_ENTRY = 0x80 + 24 + 112 + 32
MEASURING = b"ima_policy=tcb ima_hash=sha256"
SECTIONS = {
    ".sdmagic": b"#### LoaderInfo: systemd-stub 252.39 ####\0",
    ".osrel": b"ID=umec",
    ".cmdline": b"ro panic=1 " + MEASURING,
    ".initrd": b"initrd",
    ".linux": b"LOADED_IMAGE::LoadOptions\0 Linux initrd\0",
}


def certificate(name, *, key=None, issuer=None, issuer_key=None):
    key = key or rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime(2034, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.subject if issuer else subject)
    builder = builder.public_key(key.public_key()).serial_number(7).not_valid_before(now)
    built = builder.not_valid_after(now.replace(year=2054)).sign(issuer_key or key, hashes.SHA256())
    return built, key


@pytest.fixture(scope="module")
def keys():
    authority, authority_key = certificate("authority")
    signer, key = certificate("signer", issuer=authority, issuer_key=authority_key)
    other, _ = certificate("authority", key=key)
    return {"authority": authority, "signer": signer, "key": key, "other": other}


def entry(content):
    return OWNER.bytes_le + (content if isinstance(content, bytes) else content.public_bytes(Encoding.DER))


def database(*contents, kind=X509):
    entries = [entry(content) for content in contents]
    return b"".join(kind.bytes_le + struct.pack("<III", 28 + len(each), 0, len(each)) + each for each in entries)


def signature(keys, more=()):
    builder = PKCS7SignatureBuilder().set_data(b"digest").add_signer(keys["signer"], keys["key"], hashes.SHA256())
    for each in more:
        builder = builder.add_certificate(each)
    return builder.sign(Encoding.DER, [PKCS7Options.Binary])


def signed(image, pkcs7, *, revision=0x0200, form=2, fill=0, size=None):
    table = struct.pack("<IHH", 8 + len(pkcs7) if size is None else size, revision, form) + pkcs7 + bytes(fill)
    return image[:TABLE_ENTRY] + struct.pack("<II", len(image), len(table)) + image[TABLE_ENTRY + 8 :] + table


@pytest.fixture
def folder(tmp_path, keys, monkeypatch):
    """A built image; builds of its firmware are known by the name "ours"."""
    known = parse_builds(json.dumps({"builds": [{"name": "ours", "code_sha256": CODE, "pcrs": VALUES}]}).encode())
    monkeypatch.setattr(builds, "known_builds", lambda: known)
    (tmp_path / "efivars").mkdir()
    (tmp_path / "firmware.json").write_text(json.dumps({"code": "/x", "sha256": CODE, "version": "1"}))
    values = {"SecureBoot": b"\x01", "PK": database(keys["other"]), "KEK": database(keys["authority"]), "dbx": b""}
    for name, value in values.items():
        (tmp_path / "efivars" / name).write_bytes(value)
    (tmp_path / "efivars" / "db").write_bytes(database(keys["signer"]))
    (tmp_path / "uki.efi").write_bytes(signed(make_pe(SECTIONS), signature(keys)))
    return tmp_path


def refused(folder, why):
    with pytest.raises(ImageFolderInvalid, match=why) as caught:
        predict(folder)
    assert caught.value.code == "image-folder-invalid"


def secure_boot(folder, db_entry):
    """PCR 7 with this entry of db as what the image is verified with."""
    variables = [(GLOBAL, name) for name in ("SecureBoot", "PK", "KEK")] + [(SECURITY, "db"), (SECURITY, "dbx")]
    configured = [variable_data(vendor, name, (folder / "efivars" / name).read_bytes()) for vendor, name in variables]
    return values_of({7: measured_secure_boot(configured, [variable_data(SECURITY, "db", db_entry)])})[7]


def test_what_is_predicted_and_what_is_not(folder, keys):
    predicted = predict(folder)
    assert set(predicted.pcrs) == {4, 7, 8, 9, 11, 12, 13, 14, 15}
    assert predicted.ignored == IGNORED
    assert set(IGNORED) == {1, 5}
    assert dict(predicted.models) == {"ours": {int(pcr): bytes.fromhex(value) for pcr, value in VALUES.items()}}
    image = parse_pe((folder / "uki.efi").read_bytes(), what="uki")
    assert predicted.pcrs[4] == values_of({4: boot_applications([image.authenticode_sha256()])})[4]
    assert predicted.pcrs[7] == secure_boot(folder, entry(keys["signer"]))
    assert {predicted.pcrs[pcr] for pcr in (8, 12, 13, 14, 15)} == {bytes(32)}
    assert predicted.pcrs[9] != predicted.pcrs[11]


@pytest.mark.parametrize("name", ["SecureBoot", "PK", "KEK", "db", "dbx"])
def test_a_variable_that_is_missing(folder, name):
    before = predict(folder)
    (folder / "efivars" / name).rename(folder / "away")
    refused(folder, name)
    (folder / "away").rename(folder / "efivars" / name)
    assert predict(folder) == before


@pytest.mark.parametrize("value", [b"", b"\0", b"\x01\0", b"\x02"])
def test_secure_boot_is_off(folder, value):
    (folder / "efivars" / "SecureBoot").write_bytes(value)
    refused(folder, "Secure Boot is off")
    (folder / "efivars" / "SecureBoot").write_bytes(b"\x01")
    assert predict(folder)


@pytest.mark.parametrize(
    "said",
    [
        "{}",
        "[]",
        "no",
        json.dumps({"code": "/x", "sha256": CODE.upper(), "version": "1"}),
        json.dumps({"code": "/x", "sha256": CODE, "version": "1", "more": 1}),
        "[" * 100_000,
    ],
)
def test_no_firmware(folder, said):
    (folder / "firmware.json").write_text(said)
    refused(folder, r"firmware\.json says of no firmware")


def test_another_firmware(folder, refused):
    (folder / "firmware.json").write_text(json.dumps({"code": "/x", "sha256": "cd" * 32, "version": "1"}))
    with refused("firmware-unknown"):
        predict(folder)
    mine = [
        {"name": "board", "code_sha256": None, "pcrs": VALUES},
        {"name": "ours", "code_sha256": CODE} | {"pcrs": VALUES},
    ]
    boards = parse_builds(json.dumps({"builds": mine}).encode())
    assert set(predict(folder, boards).models) == {"board"}
    (folder / "firmware.json").write_text(json.dumps({"code": "/x", "sha256": CODE, "version": "1"}))
    assert set(predict(folder, boards).models) == {"board", "ours"}
    changed = parse_builds(json.dumps({"builds": [mine[1] | {"pcrs": VALUES | {"0": "01" * 32}}]}).encode())
    with pytest.raises(ReferenceInvalid, match="two firmware builds with the name ours"):
        predict(folder, changed)


def builds_refused(wire, why):
    with pytest.raises(ReferenceInvalid, match=why) as caught:
        parse_builds(wire if isinstance(wire, bytes) else json.dumps(wire).encode())
    assert caught.value.code == "reference-invalid"


def test_lists_of_builds():
    good = {"name": "a board (1 GiB)", "code_sha256": None, "pcrs": VALUES}
    assert render_builds(parse_builds(json.dumps({"builds": [good]}).encode())) == {"builds": [good]}
    for fault in (
        {"name": ""},
        {"name": "a\nb"},
        {"code_sha256": "x"},
        {"more": 1},
        {"pcrs": VALUES | {"0": "00"}},
    ):
        builds_refused({"builds": [good | fault]}, "no list of firmware builds")
    builds_refused(b"[" * 100_000, "no list")
    builds_refused(b'{"builds": [], "builds": []}', "no list")
    for pcrs in ({"0": VALUES["0"]}, VALUES | {"1": "11" * 32}):
        builds_refused({"builds": [good | {"pcrs": pcrs}]}, "does not have the PCRs")


def test_the_builds_that_come_along_can_be_told_apart():
    known = builds.known_builds()
    assert len({build.name for build in known}) == len({build.pcrs[0] for build in known}) == len(known)
    separator = extend_all([bytes.fromhex("df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119")])
    assert {build.pcrs[pcr] for build in known for pcr in (2, 3, 6)} == {separator}
    assert all(build.code_sha256 for build in known)


# --- who signed it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda uki, _: uki, "is not signed"),
        (lambda uki, pkcs7: signed(uki, pkcs7, revision=0x0100), "more than one signature"),
        (lambda uki, pkcs7: signed(uki, pkcs7, form=1), "more than one signature"),
        (lambda uki, pkcs7: signed(uki, pkcs7, fill=8), "more than one signature"),
        (lambda uki, pkcs7: signed(uki, pkcs7, size=9 + len(pkcs7)), "more than one signature"),
        (lambda uki, _: signed(uki, b"0\x82\0\x01x"), "cannot be read"),
        (lambda uki, pkcs7: signed(uki, b"1" + pkcs7[1:]), "is no sequence"),
        (lambda uki, _: signed(uki, b""), "cannot be read"),
    ],
)
def test_an_image_that_is_not_signed_once(folder, keys, change, why):
    (folder / "uki.efi").write_bytes(change(make_pe(SECTIONS), signature(keys)))
    refused(folder, why)
    (folder / "uki.efi").write_bytes(signed(make_pe(SECTIONS), signature(keys), fill=7))
    assert predict(folder)


def test_a_signature_that_is_filled_up(folder, keys):
    expected = predict(folder).pcrs[7]
    (folder / "uki.efi").write_bytes(signed(make_pe(SECTIONS), signature(keys) + bytes(7)))
    assert predict(folder).pcrs[7] == expected


def test_a_signature_with_several_certificates(folder, keys):
    (folder / "uki.efi").write_bytes(signed(make_pe(SECTIONS), signature(keys, [keys["authority"]])))
    refused(folder, "brings 2 certificates")


def test_the_first_entry_of_db_that_verifies_it(folder, keys):
    other, authority, signer = keys["other"], keys["authority"], keys["signer"]
    db = folder / "efivars" / "db"
    for entries, verifying in (
        ([other, signer, authority], signer),
        ([other, authority, signer], authority),
        ([b"no certificate", authority], authority),
    ):
        db.write_bytes(database(*entries))
        assert predict(folder).pcrs[7] == secure_boot(folder, entry(verifying))
    for value, why in (
        (database(other), "no certificate of db verifies"),
        (database(signer, kind=SHA256), "no certificate of db verifies"),
        (b"", "no certificate of db verifies"),
        (database(signer)[:-1], "db is no list"),
    ):
        db.write_bytes(value)
        refused(folder, why)


def test_lists_of_signatures():
    one, two = entry(b"1" * 8), entry(b"2" * 8)
    head = X509.bytes_le + struct.pack("<III", 28 + 4 + 48, 4, 24)
    found = signatures(head + b"head" + one + two + database(b"3"))
    assert [(each.kind, each.data, each.content) for each in found] == [
        (X509, one, b"1" * 8),
        (X509, two, b"2" * 8),
        (X509, entry(b"3"), b"3"),
    ]
    assert signatures(b"") == ()
    assert first_signature(b"") is None
    for broken in (
        head[:-1],
        head + b"head" + one + two[:-1],
        X509.bytes_le + struct.pack("<III", 28 + 16, 0, 16) + bytes(16),
        X509.bytes_le + struct.pack("<III", 28 + 25, 0, 24) + bytes(25),
        X509.bytes_le + struct.pack("<III", 28 - 24, 0, 24) + bytes(28),
    ):
        assert signatures(broken) is None
        assert first_signature(broken) is None


# --- what may run -----------------------------------------------------------------------------------------------------


def test_files_of_the_initrd_count_where_they_are_measured(folder, keys, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "init").write_bytes(b"2")
    (root / "run").write_bytes(b"3")

    def files(line, archive):
        uki = make_pe(SECTIONS | {".cmdline": line, ".initrd": archive})
        (folder / "uki.efi").write_bytes(signed(uki, signature(keys)))
        return predict_started(folder, root)["files"]

    def member(name, content):
        fields = [1, 0o100755, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % value for value in fields) + name + b"\0"
        return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)

    archive = member(b"init", b"1") + member(b"bin", b"4") + member(b"TRAILER!!!", b"")
    plain = files(b"ro " + MEASURING, b"no archive at all")
    assert set(plain) == {"/init", "/run"}
    both = files(b"root=/dev/mapper/root " + MEASURING, archive)
    assert set(both) == {"/init", "/run", "/bin"}
    assert both["/init"][0] == plain["/init"][0] != both["/init"][1]
    (folder / "firmware.json").unlink()
    assert predict_started(folder, root)["files"] == plain


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ro", "ima_policy=tcb"),
        ("ro ima_hash=sha256", "ima_policy=tcb"),
        ("ro ima_policy= ima_hash=sha256", "ima_policy=tcb"),
        ("ro ima_policy=appraise_tcb ima_hash=sha256", "ima_policy=tcb"),
        ('ro x="ima_policy=tcb ima_hash=sha256', "ima_policy=tcb"),
        ('ro x="1 ima_policy=tcb 2" ima_hash=sha256', "ima_policy=tcb"),
        ("ro ima_hash=sha256 -- ima_policy=tcb", "ima_policy=tcb"),
        ("ro ima_policy=tcb", "ima_hash=sha256"),
        ("ro ima_policy=tcb ima-hash=sha1 ima_hash=sha256", "ima_hash=sha256"),
        ("ro ima_policy=tcb ima_hash=sha256 initcall_blacklist=init_ima", "leaves out"),
    ],
)
def test_a_kernel_that_measures_nothing_gets_no_list_of_what_may_run(folder, keys, tmp_path, line, why):
    (tmp_path / "run").write_bytes(b"x")

    def started(command_line):
        uki = make_pe(SECTIONS | {".cmdline": command_line.encode()})
        (folder / "uki.efi").write_bytes(signed(uki, signature(keys)))
        return predict_started(folder, tmp_path)

    with pytest.raises(ImageFolderInvalid, match=why) as caught:
        started(line)
    assert caught.value.code == "image-folder-invalid"
    for good in (MEASURING.decode(), 'ima-policy="tcb|fail_securely" "ima_hash=sha256" x="a b"'):
        assert "/run" in started(f"ro {good}")["files"]


# --- commands ---------------------------------------------------------------------------------------------------------

LOG = Path(__file__).with_name("real_boots") / "built.bin"


@pytest.fixture
def run(monkeypatch):
    def call(*arguments):
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr("sys.argv", ["umec", "nodeimage", *words])
        result = CliRunner().invoke(nodeimage.app, words)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, (json.loads(result.stdout) if "--json" in words else result.output)

    return call


def test_a_firmware_is_taken_from_a_log_and_counts(run, folder, tmp_path):
    boards, code = tmp_path / "boards.json", tmp_path / "code"
    code.write_bytes(b"code")
    status, shown = run("firmware", LOG, "--name", "lamp 1", "--out", boards, "--json")
    booted = json.loads(LOG.with_suffix(".json").read_text())["pcrs"]
    assert (status, shown["pcrs"]) == (0, {pcr: booted[pcr] for pcr in ("0", "2", "3", "6")})
    assert run("firmware", LOG, "--name", "lamp 2", "--out", boards, "--code", code)[0] == 0
    assert run("firmware", LOG, "--name", "lamp 1", "--out", boards)[0] == 0
    first, second = parse_builds(boards.read_bytes())
    assert (first.name, first.code_sha256) == ("lamp 2", hashlib.sha256(b"code").hexdigest())
    assert (second.name, second.code_sha256) == ("lamp 1", None)
    status, shown = run("predict", folder, "--firmware", boards, "--json")
    assert (status, set(shown["models"])) == (0, {"ours", "lamp 1"})
    before = boards.read_bytes()
    assert run("firmware", LOG, "--name", "a\nb", "--out", boards, "--json")[1]["code"] == "reference-invalid"
    assert boards.read_bytes() == before
    boards.write_bytes(b"{}")
    assert run("firmware", LOG, "--name", "lamp", "--out", boards, "--json")[1]["code"] == "reference-invalid"


def test_a_log_that_says_nothing_of_the_firmware(run, kit, tmp_path):
    log = tmp_path / "log"
    events = kit.good_events()
    for left, code in (([event for event in events if event.pcr != 6], "firmware-unknown"), (events, None)):
        log.write_bytes(kit.write_log(left))
        assert run("firmware", log, "--name", "n", "--out", tmp_path / "out", "--json")[1].get("code") == code


def test_a_built_image_becomes_a_set(run, folder, kit, tmp_path):
    out, key, draft, root = (tmp_path / name for name in ("set.json", "key.pem", "draft.json", "root"))
    root.mkdir()
    (root / "run").write_bytes(b"1")
    options = ["--name", "edge", "--version", 1, "--key", key, "--out", out]
    status, said = run("predict", folder, *options, "--root", root, "--pcr", 13, "--draft", draft)
    assert (status, "firmware ours:" in said, "PCR  5  ignored: the partition table" in said) == (0, True, True)
    signers = [load_or_create_key(key).public_key()]
    reference = read_reference_set(out.read_bytes(), signers=signers)
    assert set(reference.pcrs[kit.SHA256]) == {4, 7, 8, 9, 11, 12, 13, 14}
    assert (set(reference.models), dict(reference.ignored)) == ({"ours"}, dict(IGNORED))
    assert set(reference.runtime.files) == {b"/run\0"}
    wanted = parse_draft(draft.read_bytes())
    assert (wanted.pcrs, wanted.ignored, wanted.runtime) == (reference.pcrs, reference.ignored, reference.runtime)
    assert {name: model.pcrs for name, model in wanted.models.items()} == {
        name: model.pcrs for name, model in reference.models.items()
    }


@pytest.mark.vm
def test_the_root_file_system_as_an_image(run, folder, tmp_path):
    root, image, draft = tmp_path / "root", tmp_path / "root.img", tmp_path / "draft.json"
    (root / "usr").mkdir(parents=True)
    (root / "usr" / "run").write_bytes(b"1")
    subprocess.run(["mksquashfs", root, image, "-quiet", "-no-progress", "-all-root"], check=True)
    said = []
    for given in (root, image):
        assert run("predict", folder, "--root", given, "--draft", draft)[0] == 0
        said.append(json.loads(draft.read_text())["runtime"])
    assert said[0] == said[1] == {"files": {"/usr/run": [hashlib.sha256(b"1").hexdigest()]}}
    image.write_bytes(image.read_bytes()[:100])
    assert run("predict", folder, "--root", image, "--json")[1]["code"] == "tool-failed"
