"""`umec bootlog`, `umec evidence` and `umec nodeimage`: what they print, and when they exit non-zero."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from umec_attest.errors import AttestError, ImageFolderInvalid, ReferenceSignature
from umec_attest.offline import MAX_PCRS_SIZE, EvidencePieces, check_consistency, parse_key
from umec_attest.predict import predict
from umec_attest.predict.pe import parse_pe
from umec_attest.predict.uefi import first_signature
from umec_attest.reference import MAX_PUBLISHED, MAX_SENT, sign_reference_set, verify_reference_set
from umec_attest.testing.image import make_image
from umec_attest.tpm.pcr import PcrSelection
from umec_core.http import MAX_BODY
from umec_core.keys import load_or_create_key
from umec_platform.cli import bootlog, evidence, nodeimage


@pytest.fixture
def run(monkeypatch):
    def call(app, *arguments):
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr("sys.argv", ["umec", *words])
        result = CliRunner().invoke(app, words)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, (json.loads(result.stdout) if "--json" in words else result.output)

    return call


# --- boot logs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def log_file(kit, tmp_path):
    path = tmp_path / "bootlog.bin"
    path.write_bytes(kit.write_log(kit.good_events()))
    return path


def test_bootlog_show(kit, run, log_file):
    code, shown = run(bootlog.app, "show", log_file, "--json")
    assert code == 0
    assert set(shown) == {"format", "events", "pcrs", "facts", "findings"}
    assert shown["pcrs"]["sha256"]["4"] == kit.replay_events(kit.good_events())[4].hex()
    assert shown["facts"]["secure_boot"] is True
    assert len(shown["events"]) == len(kit.good_events())
    code, text = run(bootlog.app, "show", log_file)
    assert code == 0
    assert "EV_SEPARATOR" in text


def test_bootlog_show_compares_with_pcrs(kit, run, log_file, tmp_path):
    values = kit.replay_events(kit.good_events())
    pcrs = tmp_path / "pcrs.json"
    for change, expected in (({}, 0), ({4: bytes(32)}, 1)):
        pcrs.write_text(json.dumps({"sha256": {str(n): value.hex() for n, value in (values | change).items()}}))
        code, shown = run(bootlog.app, "show", log_file, "--pcrs", pcrs, "--json")
        assert code == expected
        assert shown.get("code") == ("bootlog-replay-mismatch" if expected else None)


@pytest.mark.parametrize(("content", "code"), [(b"", "bootlog-empty"), (b"x" * 99, "bootlog-invalid")])
def test_bootlog_show_refuses(run, tmp_path, content, code):
    path = tmp_path / "log"
    path.write_bytes(content)
    exit_code, shown = run(bootlog.app, "show", path, "--json")
    assert (exit_code, shown["code"]) == (1, code)
    exit_code, shown = run(bootlog.app, "show", tmp_path / "missing", "--json")
    assert (exit_code, shown["code"]) == (1, "file-unreadable")


# --- evidence -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(kit, tpm, tmp_path):
    """A good evidence folder, with what is expected beside it; returns the options."""
    where = tmp_path / "evidence"
    where.mkdir()
    values = kit.replay_events(kit.good_events())
    attest = tpm.attest({kit.SHA256: values}).to_bytes()
    (where / "quote.bin").write_bytes(attest)
    (where / "signature.bin").write_bytes(tpm.sign(attest))
    (where / "pcrs.json").write_text(json.dumps({"sha256": {str(n): value.hex() for n, value in values.items()}}))
    (where / "bootlog.bin").write_bytes(kit.write_log(kit.good_events()))
    (where / "ak.pub").write_bytes(tpm.ak.to_bytes())
    (where / "ak_parent.pub").write_bytes(tpm.ek.to_bytes())
    (where / "nonce.bin").write_bytes(kit.NONCE)
    parent = tmp_path / "ek.pub"
    parent.write_bytes(tpm.ek.to_bytes())
    ak = tmp_path / "ak.pub"
    data = tpm.ak.to_bytes()
    ak.write_bytes(len(data).to_bytes(2, "big") + data)
    now = datetime.now(UTC).replace(microsecond=0)  # noqa: TID251 - the command reads the clock of the machine
    key = kit.reference_key()
    (tmp_path / "reference.json").write_bytes(
        sign_reference_set(
            name="edge",
            subject_sha256="ab" * 32,
            version=1,
            issued=now - timedelta(days=1),
            expires=now + timedelta(days=1),
            pcrs={kit.SHA256: {n: [value] for n, value in values.items()}},
            ignored={},
            key=key,
        )
    )
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "signer.pem").write_bytes(pem)
    return where, {
        "--ak": ak,
        "--ak-parent": parent,
        "--nonce": kit.NONCE.hex(),
        "--reference": tmp_path / "reference.json",
        "--signer": tmp_path / "signer.pem",
        "--policy": "default",
    }


def options(given):
    return [word for pair in given.items() for word in pair]


def test_evidence_verify(run, folder):
    where, given = folder
    code, shown = run(evidence.app, "verify", where, *options(given), "--json")
    assert (code, shown["verdict"], shown["findings"]) == (0, "affirming", [])
    assert shown["trust_vector"]["executables"] == 3


def test_a_set_before_the_reference_counts_in_its_grace(kit, run, folder, tmp_path):
    """Signed by the command that people sign with, from a draft that has another kernel."""
    where, given = folder
    key, draft = tmp_path / "signer.key", tmp_path / "draft.json"
    key.write_bytes(
        kit.reference_key().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    key.chmod(0o600)
    values = kit.replay_events(kit.good_events()) | {11: b"\x0b" * 32}
    pcrs = {"sha256": {str(n): [value.hex()] for n, value in values.items()}}
    draft.write_text(json.dumps({"image_sha256": "ab" * 32, "pcrs": pcrs}))
    newer = tmp_path / "newer.json"
    sign = [draft, "--name", "edge", "--version", 2, "--key", key, "--out", newer]

    def verified(*grace):
        assert run(nodeimage.app, "sign", *sign, *grace, "--json")[0] == 0
        words = [*options(given | {"--reference": newer}), "--older", given["--reference"]]
        return run(evidence.app, "verify", where, *words, "--json")

    code, shown = verified("--grace", "12h")
    assert (code, shown["verdict"], shown["reference_version"]) == (0, "affirming", 1)
    for without in ((), ("--grace", "0")):
        code, shown = verified(*without)
        assert (code, shown["verdict"], shown["reference_version"]) == (1, "contraindicated", 2)
        assert shown["findings"][-1]["id"] == "version-outdated"
    for wrong, said in (
        (("--grace", "12"), "invalid-input"),
        (("--grace", "-1h"), "invalid-input"),
        (("--grace-from", 1), "invalid-input"),
        (("--grace", "31d"), "reference-invalid"),
        (("--grace", "1h", "--grace-from", 2), "reference-invalid"),
    ):
        code, shown = run(nodeimage.app, "sign", *sign, *wrong, "--json")
        assert (code, shown["code"]) == (1, said)


@pytest.mark.parametrize("option", ["--ak", "--nonce", "--reference", "--signer", "--policy"])
def test_nothing_is_taken_from_the_folder(run, folder, option):
    where, given = folder
    del given[option]
    code, shown = run(evidence.app, "verify", where, *options(given), "--json")
    assert (code, shown["code"]) == (1, "evidence-incomplete")


def test_the_parent_is_no_secret(run, folder):
    where, given = folder
    del given["--ak-parent"]
    code, shown = run(evidence.app, "verify", where, *options(given), "--json")
    assert (code, shown["verdict"]) == (0, "affirming")
    (where / "ak_parent.pub").unlink()
    code, shown = run(evidence.app, "verify", where, *options(given), "--json")
    assert (code, shown["code"]) == (1, "quote-signer-mismatch")


def test_evidence_of_another(kit, run, folder, tmp_path):
    where, given = folder
    stranger = tmp_path / "stranger.pub"
    stranger.write_bytes(kit.Adversary(key=kit.ec_key(name="stranger")).ak.to_bytes())
    for change, expected in (
        ({"--ak": stranger}, "quote-signer-mismatch"),
        ({"--ak-parent": stranger}, "quote-signer-mismatch"),
        ({"--nonce": "00" * 32}, "quote-nonce-mismatch"),
        ({"--nonce": "xyz"}, "invalid-input"),
        ({"--signer": stranger}, "reference-signature"),
        ({"--reference": stranger}, "reference-signature"),
        ({"--policy": tmp_path}, "policy-invalid"),
    ):
        code, shown = run(evidence.app, "verify", where, *options(given | change), "--json")
        assert (code, shown["code"]) == (1, expected)


def test_a_changed_piece_is_refused_or_contraindicated(kit, run, folder):
    where, given = folder
    (where / "bootlog.bin").write_bytes(kit.write_log(kit.good_events()[:-1]))
    code, shown = run(evidence.app, "verify", where, *options(given), "--json")
    assert (code, shown["verdict"]) == (1, "contraindicated")
    assert [finding["id"] for finding in shown["findings"]] == ["bootlog-replay-mismatch"]
    code, shown = run(evidence.app, "verify", where, "--structural", "--json")
    assert (code, shown["code"]) == (1, "bootlog-replay-mismatch")


def test_a_policy_of_ones_own(run, folder, tmp_path):
    where, given = folder
    policy = tmp_path / "mine.cedar"
    for text, code in (
        ('@id("all") permit (principal, action, resource);', 0),
        ('@id("none") forbid (principal, action, resource);', 1),
    ):
        policy.write_text(text)
        found, shown = run(evidence.app, "verify", where, *options(given | {"--policy": policy}), "--json")
        assert (found, shown["policies"]) == (code, ["all" if code == 0 else "none"])
    for broken in (b"", b"permit", b"\xff\xfe"):
        policy.write_bytes(broken)
        found, shown = run(evidence.app, "verify", where, *options(given | {"--policy": policy}), "--json")
        assert (found, shown["code"]) == (1, "policy-invalid")


@pytest.mark.parametrize("name", ["quote.bin", "signature.bin", "pcrs.json"])
def test_missing_pieces(run, folder, name):
    where, given = folder
    (where / name).unlink()
    for mode in (["--structural"], options(given)):
        code, shown = run(evidence.app, "verify", where, *mode, "--json")
        assert (code, shown["code"]) == (1, "evidence-incomplete")


def test_a_missing_boot_log_proves_nothing(run, folder):
    where, given = folder
    (where / "bootlog.bin").unlink()
    code, shown = run(evidence.app, "verify", where, *options(given), "--json")
    assert (code, shown["code"]) == (1, "evidence-incomplete")


def test_structural(run, folder):
    where, _ = folder
    code, shown = run(evidence.app, "verify", where, "--structural", "--json")
    assert (code, shown["verdict"]) == (0, "consistent, AK not anchored, no policy")
    assert "boot-log" in shown["checked"]
    assert "signer" in shown["checked"]
    (where / "nonce.bin").unlink()
    code, shown = run(evidence.app, "verify", where, "--structural", "--json")
    assert (code, shown["code"]) == (1, "evidence-incomplete")


def test_structural_refuses_the_parent_of_another(kit, run, folder):
    where, _ = folder
    (where / "ak_parent.pub").write_bytes(kit.public_of(kit.ec_key(name="other")).to_bytes())
    code, shown = run(evidence.app, "verify", where, "--structural", "--json")
    assert (code, shown["code"]) == (1, "quote-signer-mismatch")


@pytest.fixture
def pieces(kit, tpm):
    """Pieces that fit each other."""
    values = kit.replay_events(kit.good_events())
    attest = tpm.attest({kit.SHA256: values}).to_bytes()
    pcrs = json.dumps({"sha256": {str(n): value.hex() for n, value in values.items()}}).encode()
    return EvidencePieces(attest, tpm.sign(attest), pcrs, ak=tpm.ak.to_bytes(), nonce=kit.NONCE)


def test_pieces_that_do_not_fit(kit, pieces, refused):
    stranger = kit.Adversary(key=kit.ec_key(name="stranger"))
    for change, code in (
        ({"ak": None}, "evidence-incomplete"),
        ({"nonce": None}, "evidence-incomplete"),
        ({"nonce": bytes(32)}, "quote-nonce-mismatch"),
        ({"signature": stranger.sign(pieces.quote)}, "signature-invalid"),
        ({"ima": b"10 nothing"}, "ima-invalid"),
        ({"pcrs": pieces.pcrs + b" " * MAX_PCRS_SIZE}, "pcr-values-invalid"),
    ):
        with refused(code):
            check_consistency(replace(pieces, **change))
    assert check_consistency(pieces).checked == ("structure", "nonce", "signature", "pcr-digest")


def test_runtime_lists_and_unquoted_pcrs_are_not_judged(kit, run, folder):
    where, given = folder
    (where / "ima.bin").write_bytes(b"")
    code, shown = run(evidence.app, "verify", where, *options(given), "--json")
    assert (code, shown["code"]) == (1, "evidence-incomplete")
    (where / "ima.bin").unlink()
    values = kit.replay_events(kit.good_events())
    now = datetime.now(UTC).replace(microsecond=0)  # noqa: TID251 - the command reads the clock of the machine
    given["--reference"].write_bytes(
        sign_reference_set(
            name="edge",
            subject_sha256="ab" * 32,
            version=1,
            issued=now - timedelta(days=1),
            expires=now + timedelta(days=1),
            pcrs={kit.SHA256: {n: [value] for n, value in (values | {8: bytes(32)}).items()}},
            ignored={},
            key=kit.reference_key(),
        )
    )
    code, shown = run(evidence.app, "verify", where, *options(given), "--json")
    assert (code, shown["code"]) == (1, "evidence-incomplete")


def test_keys_in_both_forms(tpm):
    data = tpm.ak.to_bytes()
    assert parse_key(data) == parse_key(len(data).to_bytes(2, "big") + data) == tpm.ak


@given(pcrs=st.binary(max_size=60), log=st.none() | st.binary(max_size=100), ak=st.binary(max_size=100))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_pieces_are_refused(tpm, pcrs, log, ak):
    attest = tpm.attest().to_bytes()
    for key in (ak, tpm.ak.to_bytes()):
        pieces = EvidencePieces(attest, tpm.sign(attest), pcrs, ak=key, nonce=tpm.nonce, boot_log=log)
        with pytest.raises(AttestError):
            check_consistency(pieces)


# --- node images ----------------------------------------------------------------------------------------------------


def test_nodeimage_predict_signs_what_it_predicts(kit, run, tmp_path):
    image = make_image(tmp_path / "image")
    code, shown = run(nodeimage.app, "predict", image, "--json")
    assert code == 0
    assert shown["pcrs"]["sha256"] == {str(pcr): value.hex() for pcr, value in predict(image).pcrs.items()}
    key, out = tmp_path / "keys" / "signer.pem", tmp_path / "set.json"
    arguments = ["--name", "edge", "--version", 2, "--days", 5, "--key", key, "--out", out]
    code, shown = run(nodeimage.app, "predict", image, *arguments, "--json")
    assert (code, shown["reference"]) == (0, str(out))
    now = datetime.now(UTC)  # noqa: TID251 - the command reads the clock of the machine
    signer = load_or_create_key(key).public_key()
    reference = verify_reference_set(out.read_bytes(), signers=[signer], now=now, minimum_version=2)
    assert set(reference.pcrs[kit.SHA256]) == set(kit.PCRS)
    assert PcrSelection.from_mapping({"sha256": sorted(reference.pcrs[kit.SHA256])})


@pytest.fixture
def signer(tmp_path):
    key = load_or_create_key(tmp_path / "key.pem").public_key()
    path = tmp_path / "public.pem"
    path.write_bytes(key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return key, path


def test_a_draft_becomes_a_reference_set(run, tmp_path, signer):
    file, out = tmp_path / "draft.json", tmp_path / "set.json"
    code, predicted = run(nodeimage.app, "predict", make_image(tmp_path / "image"), "--draft", file, "--json")
    assert (code, predicted["draft"]) == (0, str(file))
    draft = json.loads(file.read_text())
    for pcr in ("0", "12"):
        del draft["pcrs"]["sha256"][pcr]
    draft |= {
        "ignored": {"12": "credentials of the site"},
        "models": {"lamp 1.0": {"pcrs": {"sha256": {"0": ["ab" * 32]}}, "excused": {"crtm-version-invalid": "why"}}},
        "runtime": {"files": {"/usr/bin/true": ["cd" * 32]}},
    }
    options = ["--name", "edge", "--version", 2, "--key", tmp_path / "key.pem", "--out", out, "--json"]
    file.write_text(json.dumps(draft))
    code, shown = run(nodeimage.app, "sign", file, *options)
    assert (code, shown) == (0, {"reference": str(out), "name": "edge", "version": 2})
    now = datetime.now(UTC)  # noqa: TID251 - the command reads the clock of the machine
    reference = verify_reference_set(out.read_bytes(), signers=[signer[0]], now=now, minimum_version=2)
    assert (reference.subject_sha256, set(reference.models)) == (predicted["image_sha256"], {"lamp 1.0"})
    assert reference.models["lamp 1.0"].excused == {"crtm-version-invalid": "why"}
    assert reference.ignored == {12: "credentials of the site"}
    assert reference.runtime.to_json()["files"] == {"/usr/bin/true": ["cd" * 32]}
    for change, expected in (
        ({"unknown": 1}, "reference-invalid"),
        ({"pcrs": {}}, "reference-empty"),
        ({"pcrs": {"sha1": {}}}, "reference-invalid"),
        ({"ignored": {"99": "why"}}, "reference-invalid"),
        ({"ignored": {"12": ""}}, "reference-invalid"),
        ({"models": {"lamp": {"pcrs": {}}}}, "reference-empty"),
        ({"runtime": {}}, "reference-empty"),
        ({"image_sha256": "AB" * 32}, "reference-invalid"),
        ({"image_sha256": None}, "reference-invalid"),
    ):
        file.write_text(json.dumps(draft | change))
        code, shown = run(nodeimage.app, "sign", file, *options)
        assert (code, shown["code"]) == (1, expected), change
    file.write_text(json.dumps(draft | {"image_sha256": None}))
    assert run(nodeimage.app, "sign", file, "--image-sha256", "ef" * 32, *options)[0] == 0
    file.write_text(json.dumps(draft))
    assert run(nodeimage.app, "sign", file, "--image-sha256", "ef" * 32, *options)[0] == 0
    again = verify_reference_set(out.read_bytes(), signers=[signer[0]], now=now, minimum_version=2)
    assert again.subject_sha256 == predicted["image_sha256"]  # an option fills a gap, and replaces nothing


def test_a_set_that_no_verifier_takes_is_told_of_and_not_sent(run, tmp_path):
    """It is good offline, so that it is signed all the same; `publish` stops before it asks anybody."""
    assert MAX_SENT == MAX_BODY
    image, root, out = make_image(tmp_path / "image"), tmp_path / "root", tmp_path / "set.json"
    root.mkdir()
    (root / "init").write_bytes(b"init")
    draft, credential = tmp_path / "draft.json", tmp_path / "credential.json"
    options = ["--name", "edge", "--version", 1, "--key", tmp_path / "key.pem", "--out", out]
    code, shown = run(nodeimage.app, "predict", image, "--root", root, "--draft", draft, *options, "--json")
    assert (code, "warning" in shown) == (0, False)
    code, shown = run(nodeimage.app, "publish", out, "--credential", credential, "--json")
    assert (code, shown["code"]) == (1, "credential-invalid")  # there is no such file: the set itself is taken
    wanted = json.loads(draft.read_text())
    wanted["runtime"]["files"] |= {f"/usr/lib/some/package/file{number}.so": ["ab" * 32] for number in range(25_000)}
    draft.write_text(json.dumps(wanted))
    code, shown = run(nodeimage.app, "sign", draft, *options, "--json")
    assert (code, "offline use only" in shown["warning"]) == (0, True)
    code, said = run(nodeimage.app, "sign", draft, *options)
    assert (code, "warning: the set has" in said) == (0, True)
    code, shown = run(nodeimage.app, "publish", out, "--credential", credential, "--json")
    assert (code, shown["code"]) == (1, "reference-too-large")
    assert len(out.read_bytes()) > MAX_PUBLISHED


def test_a_corim_becomes_a_draft_that_counts_when_signed(kit, run, tmp_path, signer):
    image, draft, corim = tmp_path / "image", tmp_path / "draft.json", tmp_path / "ours.corim"
    arguments = ["--name", "edge", "--version", 1, "--key", tmp_path / "key.pem", "--out", tmp_path / "set.json"]
    assert run(nodeimage.app, "predict", make_image(image), *arguments)[0] == 0
    code, shown = run(
        nodeimage.app, "export-corim", tmp_path / "set.json", "--signer", signer[1], "--out", corim, "--json"
    )
    assert (code, shown["unsaid"]) == (0, [])
    code, shown = run(nodeimage.app, "import-corim", corim, "--out", draft, "--json")
    assert (code, shown["left_out"]) == (0, [])
    assert {"issued", "expires"} <= shown.keys()
    with pytest.raises(ReferenceSignature):
        verify_reference_set(draft.read_bytes(), signers=[signer[0]], now=kit.NOW, minimum_version=0)
    again = ["--name", "edge", "--version", 2, "--key", tmp_path / "key.pem", "--out", tmp_path / "again.json"]
    assert run(nodeimage.app, "sign", draft, *again)[0] == 0
    now = datetime.now(UTC)  # noqa: TID251 - the command reads the clock of the machine
    first, second = (
        verify_reference_set((tmp_path / name).read_bytes(), signers=[signer[0]], now=now, minimum_version=0)
        for name in ("set.json", "again.json")
    )
    assert (first.pcrs, first.subject_sha256) == (second.pcrs, second.subject_sha256)
    corim.write_bytes(corim.read_bytes() + b"\0")
    code, shown = run(nodeimage.app, "import-corim", corim, "--out", draft, "--json")
    assert (code, shown["code"]) == (1, "corim-invalid")
    stranger = tmp_path / "stranger.pem"
    stranger.write_bytes(
        kit.ec_key(name="stranger")
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    code, shown = run(
        nodeimage.app, "export-corim", tmp_path / "set.json", "--signer", stranger, "--out", corim, "--json"
    )
    assert (code, shown["code"]) == (1, "reference-signature")


def test_nodeimage_predict_refuses(run, tmp_path):
    code, shown = run(nodeimage.app, "predict", tmp_path / "nothing", "--json")
    assert (code, shown["code"]) == (1, "image-folder-invalid")
    image = make_image(tmp_path / "image")
    code, shown = run(nodeimage.app, "predict", image, "--key", tmp_path / "key.pem", "--json")
    assert (code, shown["code"]) == (1, "reference-invalid")
    code, shown = run(
        nodeimage.app, "predict", image, "--key", tmp_path / "k", "--name", "A B", "--version", 1, "--json"
    )
    assert (code, shown["code"]) == (1, "reference-invalid")


def test_a_broken_image_is_refused(tmp_path):
    image = make_image(tmp_path)
    good = (image / "uki.efi").read_bytes()
    for wrong in (b"", b"MZ", good[:-600], good[: len(good) // 2], good.replace(b".initrd", b".nitird")):
        (image / "uki.efi").write_bytes(wrong)
        with pytest.raises(ImageFolderInvalid):
            predict(image)
    (image / "uki.efi").write_bytes(good)
    assert predict(image)
    (image / "efivars" / "dbx").unlink()
    with pytest.raises(ImageFolderInvalid):
        predict(image)


@given(flips=st.lists(st.tuples(st.integers(0, 1023), st.integers(0, 255)), max_size=6))
def test_any_header_is_an_image_or_refused(tmp_path_factory, flips):
    data = bytearray(image_bytes(tmp_path_factory))
    for at, value in flips:
        data[at] = value
    try:
        image = parse_pe(bytes(data), what="image")
        image.authenticode_sha256()
    except ImageFolderInvalid:
        return


def image_bytes(factory, cache=[]):  # noqa: B006 - made once
    if not cache:
        cache.append((make_image(factory.mktemp("image")) / "uki.efi").read_bytes())
    return cache[0]


@given(data=st.binary(max_size=200))
def test_any_database_has_a_first_signature_or_none(data):
    found = first_signature(data)
    assert found is None or len(found) > 16
