"""Lists of runtime measurements of others, each with the outcome that its collection states."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)

from umec_attest.errors import ImaInvalid
from umec_attest.ima import judge_runtime, parse_ima, parse_runtime_policy
from umec_attest.ima.entry_findings import entry_finding
from umec_attest.offline import EvidencePieces, check_consistency
from umec_attest.quote import VerifiedQuote
from umec_attest.testing.runtime import raw_entry, template_data

pytestmark = pytest.mark.vectors

NOTHING_LISTED = {"files": {"/nothing": ["00" * 32]}}


@pytest.fixture(scope="session")
def keylime(vectors):
    return vectors / "attest" / "keylime"


@pytest.fixture
def entries(keylime):
    """The entries of a list of `ima/`, whose literals may lack the last line break."""

    def read(name):
        text = (keylime / "ima" / f"{name}.txt").read_bytes()
        return parse_ima(text if text.endswith(b"\n") else text + b"\n")

    return read


@pytest.fixture
def policy(keylime):
    """A policy of others in our terms: SHA-2 digests of paths, exclusions that are plain paths, keyrings, keys."""

    def read(name, **members):
        theirs = json.loads((keylime / "ima" / f"{name}.json").read_text())
        listed = {
            path: [digest for digest in digests if len(digest) == 64]
            for path, digests in theirs["digests"].items()
            if path.startswith("/")
        }
        stated = json.loads(theirs["verification-keys"] or '{"pubkeys": []}')["pubkeys"]
        ours = {
            "files": {path: digests for path, digests in listed.items() if digests},
            "buffers": {name: digests for name, digests in theirs["keyrings"].items() if digests},
            "keys": [pem_of_base64(key) for key in stated],
        }
        return parse_runtime_policy(ours | members)

    return read


def pem_of_base64(text):
    return pem(load_der_public_key(base64.b64decode(text)))


def pem(key):
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def found(entries, policy):
    findings = [entry_finding(entry, policy) for entry in entries if entry.name != b"boot_aggregate"]
    return [None if finding is None else finding.id for finding in findings]


def test_measurements_pass_with_their_policy_and_fail_with_another(entries, policy):
    measured = entries("MEASUREMENTS")
    assert [entry.template for entry in measured] == ["ima-sig"] * 3
    assert found(measured, policy("RUNTIME_POLICY_TEST")) == [None, None]
    assert found(measured, parse_runtime_policy(NOTHING_LISTED)) == ["ima-file-unknown"] * 2


def test_signatures_pass_with_their_key_alone(entries, keylime, policy):
    signed = entries("SIGNATURES")
    assert found(signed, parse_runtime_policy(NOTHING_LISTED)) == ["ima-key-unknown"] * 2
    rsa = (keylime / "ima_keys" / "rsa2048pub.pem").read_text()
    ec = pem(load_pem_private_key((keylime / "ima_keys" / "secp256k1.pem").read_bytes(), None).public_key())
    assert found(signed, parse_runtime_policy({"keys": [rsa]})) == [None, "ima-key-unknown"]
    assert found(signed, parse_runtime_policy({"keys": [ec]})) == ["ima-key-unknown", None]
    assert found(signed, policy("RUNTIME_POLICY_WITH_VERIFICATION_KEYS", files={})) == [None, None]
    assert found(signed, parse_runtime_policy({"keys": [rsa], "revoked_keys": [ec]})) == [None, "ima-key-revoked"]


def test_exclusions_hide_wrong_digests(entries, policy, keylime):
    signed = entries("SIGNATURES")
    assert found(signed, policy("RUNTIME_POLICY_WRONG")) == ["ima-file-changed"] * 2
    excluded = [name for name in json.loads((keylime / "ima" / "EXCLUDES.json").read_text()) if name.startswith("/")]
    assert found(signed, policy("RUNTIME_POLICY_WRONG", exclude=excluded)) == [None, None]


def test_a_signature_of_a_wrong_size(entries, keylime, policy):
    text = (keylime / "ima" / "BAD_SIGNATURES.txt").read_bytes()
    with pytest.raises(ImaInvalid):
        parse_ima(text)  # its template hash is that of the good one
    good = entries("SIGNATURES")[1]
    wrong = bytes.fromhex(text.split()[-1].decode())
    forged = parse_ima(raw_entry(template_data(*good.fields[:2], wrong), "ima-sig"))
    known = policy("RUNTIME_POLICY_WITH_VERIFICATION_KEYS", files={})
    assert found(forged, known) == ["ima-signature-invalid"]
    assert found([good], known) == [None]


def test_a_key_that_the_kernel_loaded(entries, policy):
    (loaded,) = entries("KEYRINGS")
    assert (loaded.template, loaded.name) == ("ima-buf", b".ima")
    assert found([loaded], policy("RUNTIME_POLICY_TEST")) == [None]
    assert found([loaded], parse_runtime_policy(NOTHING_LISTED)) == ["ima-buffer-unknown"]


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_lists_of_every_strong_hash(keylime, algorithm):
    _, data = parse_ima((keylime / "create-runtime-policy" / f"ima-log-{algorithm}").read_bytes())
    digest = data.fields[0].partition(b":\0")[2].hex()
    assert found([data], parse_runtime_policy({"files": {"/data": [digest]}})) == [None]
    assert found([data], parse_runtime_policy({"files": {"/data": ["00" * 32]}})) == ["ima-file-changed"]


def test_a_list_of_sha1_is_weak(keylime):
    _, data = parse_ima((keylime / "create-runtime-policy" / "ima-log-sha1").read_bytes())
    assert found([data], parse_runtime_policy(NOTHING_LISTED)) == ["ima-digest-weak"]


@pytest.mark.parametrize("algorithm", ["sm3_256", "unknown"])
def test_lists_that_no_kernel_writes(keylime, algorithm):
    """Their template hashes have 32 bytes, as in no list of Linux before the ones by bank."""
    with pytest.raises(ImaInvalid):
        parse_ima((keylime / "create-runtime-policy" / f"ima-log-{algorithm}").read_bytes())


@pytest.fixture(scope="session")
def server(vectors):
    folder = vectors / "attest" / "hpe-keylime-perf-tests"
    pieces = EvidencePieces(
        quote=(folder / "quote.bin").read_bytes(),
        signature=(folder / "signature.bin").read_bytes(),
        pcrs=json.dumps(json.loads((folder / "expected.json").read_text())["pcrs"]).encode(),
        ak=(folder / "ak_tpm2b_public.bin").read_bytes(),
        nonce=b"Sb7tNlqsd32uI1ZPWtDs",
    )
    quote = check_consistency(pieces).quote
    return (folder / "ima_log.txt").read_bytes(), VerifiedQuote(quote.pcrs, quote.clock_info, quote.firmware_version)


def test_what_ran_on_a_real_server(server):
    text, quote = server
    files = {}
    for entry in parse_ima(text)[1:]:
        files.setdefault(entry.name.decode(), []).append(entry.fields[0][8:].hex())
    policy = parse_runtime_policy({"files": files})
    judged = judge_runtime(text, quote, None, policy)
    assert (judged.findings, judged.entries) == ((), 780)
    left_out = next(path for path in files if path.endswith("x_tables.ko.zst"))
    less = parse_runtime_policy({"files": {path: digests for path, digests in files.items() if path != left_out}})
    (finding,) = judge_runtime(text, quote, None, less).findings
    assert finding.id == "ima-file-unknown"
    assert left_out in finding.detail
