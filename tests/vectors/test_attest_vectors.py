"""Real boot logs, quotes and keys of others, each with the outcome that its collection states."""

import hashlib
import json

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from umec_attest.bootlog import claimed_facts, extract_facts, parse_boot_log, replay, verify_boot_log
from umec_attest.bootlog.efi import parse_variable
from umec_attest.bootlog.event_types import EV_EFI_VARIABLE_DRIVER_CONFIG, EV_NO_ACTION, EV_SEPARATOR
from umec_attest.enrolment import check_ak
from umec_attest.errors import AttestError, BootLogRefused
from umec_attest.ima import parse_ima
from umec_attest.offline import EvidencePieces, check_consistency, parse_key
from umec_attest.predict.measure import boot_applications, secure_boot, values_of
from umec_attest.predict.uefi import variable_data
from umec_attest.quote import verify_quote_unanchored
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.attest import parse_attest
from umec_attest.tpm.public import Attributes, Public, RsaParameters

pytestmark = pytest.mark.vectors

SHA256 = HashAlgorithm.SHA256
GO_TPM_TOOLS = [
    "arch-linux-workstation",
    "confidential-gke-debug-251000_eventlog",
    "cos-101-amd-sev",
    "cos-85-amd-sev",
    "cos-93-amd-sev",
    "debian-10",
    "eventlogwithsp800155",
    "gdc-host",
    "glinux-alex",
    "rhel8-uefi",
    "ubuntu-1804-amd-sev",
    "ubuntu-2104-no-dbx",
    "ubuntu-2104-no-secure-boot",
    "ubuntu-2404-amd-sevsnp",
]
FINDINGS = {
    "arch-linux-workstation": {"boot-application-early", "secure-boot-variable-empty"},
    "gdc-host": {"boot-application-early", "crtm-version-invalid"},
    "glinux-alex": {"boot-application-early", "separator-retyped"},
}
"""What is odd about each; every other log of that collection is clean."""
SECURE_BOOT_ON = {
    "cos-85-amd-sev",
    "cos-93-amd-sev",
    "cos-101-amd-sev",
    "rhel8-uefi",
    "debian-10",
    "confidential-gke-debug-251000_eventlog",
    "eventlogwithsp800155",
}
APPLICATIONS_OF_ANOTHER_LOG = {"gdc-host"}
"""Their collection asserts digests that are nowhere in this log."""
TPM2_TOOLS = [
    "event-arch-linux",
    "event-bootorder",
    "event-gce-ubuntu-2104-log",
    "event-moklisttrusted",
    "event-postcode",
    "event-sd-boot-fedora37",
    "event-uefi-sha1-log",
    "event-uefiaction",
    "event-uefiservices",
    "event-uefivar",
    "event",
]


@pytest.fixture(scope="session")
def attest(vectors):
    return vectors / "attest"


def banks_of(raw):
    measured = [event for event in raw.events if event.type != EV_NO_ACTION]
    return [bank for bank in raw.algorithms if all(event.digest(bank) is not None for event in measured)]


def expected_pcrs(path):
    banks = json.loads(path.read_text())["asserted_pcrs"]
    return {
        HashAlgorithm.from_label(bank): {int(n): bytes.fromhex(v) for n, v in pcrs.items()}
        for bank, pcrs in banks.items()
    }


@pytest.mark.parametrize("name", GO_TPM_TOOLS)
def test_every_bank_of_the_real_logs_replays(attest, name):
    path = attest / "go-tpm-tools/eventlogs" / f"{name}.bin"
    raw = parse_boot_log(path.read_bytes())
    compared = 0
    for bank, pcrs in expected_pcrs(path.with_name(path.name + ".expected.json")).items():
        replayed = replay(raw, bank)
        for pcr, value in replayed.items():
            if pcr in pcrs:
                assert value == pcrs[pcr], (bank, pcr)
                compared += 1
    assert compared >= 8


@pytest.mark.parametrize("name", GO_TPM_TOOLS)
def test_facts_and_findings_of_the_real_logs(attest, name):
    path = attest / "go-tpm-tools/eventlogs" / f"{name}.bin"
    raw = parse_boot_log(path.read_bytes())
    facts = claimed_facts(raw, SHA256 if SHA256 in raw.algorithms else HashAlgorithm.SHA1)
    assert {finding.id for finding in facts.findings} == FINDINGS.get(name, set())
    assert facts.secure_boot is (None if name == "arch-linux-workstation" else name in SECURE_BOOT_ON)
    expected = json.loads(path.with_name(path.name + ".expected.json").read_text())
    asserted = expected.get("asserted_efi_app_digests", {}).get(facts.algorithm.label)
    if asserted is not None and name not in APPLICATIONS_OF_ANOTHER_LOG:
        assert list(facts.boot_applications) == asserted


@pytest.mark.parametrize("name", TPM2_TOOLS)
def test_tpm2_tools_replays_the_same(attest, name):
    folder = attest / "tpm2-tools"
    raw = parse_boot_log((folder / f"{name}.bin").read_bytes())
    said = next(
        path
        for path in (folder / "expected-yaml-raw" / f"{name}.bin.yaml", folder / f"{name}.bin.yaml")
        if path.exists()
    )
    bank, compared = None, 0
    lines = said.read_text().split("\npcrs:")[-1].splitlines()
    for line in lines:
        label, _, value = (part.strip() for part in line.partition(":"))
        if not value and label:
            bank = HashAlgorithm.from_label(label)
        elif label.isdecimal() and bank in banks_of(raw):
            assert replay(raw, bank)[int(label)].hex() == value.removeprefix("0x").strip("'\"").lower()
            compared += 1
    assert compared or not banks_of(raw)


def test_confidential_computing_log_replays_with_its_duplicate_separator_found(attest):
    folder = attest / "go-eventlog/ccel"
    name = "cos-113-intel-tdx-dupe-separator-unpadded.bin"
    raw = parse_boot_log((folder / name).read_bytes())
    assert raw.format == "confidential-computing"
    replayed = replay(raw, HashAlgorithm.SHA384)
    expected = json.loads((folder / "expected.json").read_text())[name]["independent_replay"]
    assert {str(register): value.hex() for register, value in replayed.items()} == expected
    assert "separator-duplicate" in {finding.id for finding in claimed_facts(raw, HashAlgorithm.SHA384).findings}


def test_missing_exit_boot_services_event_does_not_replay(attest):
    folder = attest / "go-eventlog/legacy"
    raw = parse_boot_log((folder / "ebs_event_missing_eventlog").read_bytes())
    expected = json.loads((folder / "ebs_event_missing_eventlog.expected.json").read_text())
    value = bytes.fromhex(expected["asserted_pcrs"]["sha1"]["5"])
    replayed = replay(raw, HashAlgorithm.SHA1)[5]
    assert replayed != value
    for text in (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success"):
        replayed = HashAlgorithm.SHA1.digest(replayed + HashAlgorithm.SHA1.digest(text))
    assert replayed == value


# --- prediction against real boots ----------------------------------------------------------------------------------


def secure_boot_inputs(raw):
    events = [event for event in raw.events if event.pcr == 7 and event.type != EV_NO_ACTION]
    end = next(n for n, event in enumerate(events) if event.type == EV_SEPARATOR)
    return events[:end], events[end + 1 :]


@pytest.mark.parametrize(
    "name", ["cos-101-amd-sev", "rhel8-uefi", "ubuntu-1804-amd-sev", "ubuntu-2104-no-dbx", "ubuntu-2404-amd-sevsnp"]
)
def test_pcr_7_is_predicted_from_the_variables_of_a_real_boot(attest, name):
    raw = parse_boot_log((attest / "go-tpm-tools/eventlogs" / f"{name}.bin").read_bytes())
    before, after = secure_boot_inputs(raw)
    variables = [parse_variable(event.data) for event in before]
    assert [found.name for found in variables] == ["SecureBoot", "PK", "KEK", "db", "dbx"]
    assert all(event.type == EV_EFI_VARIABLE_DRIVER_CONFIG for event in before)
    assert all(event.digest(SHA256) == hashlib.sha256(event.data).digest() for event in after)
    configuration = [variable_data(found.vendor, found.name, found.data) for found in variables]
    assert values_of({7: secure_boot(configuration, [event.data for event in after])})[7] == replay(raw, SHA256)[7]


@pytest.mark.parametrize("name", ["cos-85-amd-sev", "cos-101-amd-sev", "rhel8-uefi", "ubuntu-2104-no-secure-boot"])
def test_pcr_4_is_predicted_from_the_applications_of_a_real_boot(attest, name):
    raw = parse_boot_log((attest / "go-tpm-tools/eventlogs" / f"{name}.bin").read_bytes())
    applications = [bytes.fromhex(digest) for digest in claimed_facts(raw, SHA256).boot_applications]
    assert values_of({4: boot_applications(applications)})[4] == replay(raw, SHA256)[4]


# --- quotes ---------------------------------------------------------------------------------------------------------


def pcr_values(expected):
    return {
        HashAlgorithm.from_label(bank): {int(n): bytes.fromhex(v) for n, v in pcrs.items()}
        for bank, pcrs in expected.items()
    }


@pytest.fixture(scope="session")
def server(attest):
    """The whole evidence of one real server."""
    folder = attest / "hpe-keylime-perf-tests"
    pcrs = json.loads((folder / "expected.json").read_text())["pcrs"]
    nonce = b"Sb7tNlqsd32uI1ZPWtDs"
    return EvidencePieces(
        quote=(folder / "quote.bin").read_bytes(),
        signature=(folder / "signature.bin").read_bytes(),
        pcrs=json.dumps(pcrs).encode(),
        ak=(folder / "ak_tpm2b_public.bin").read_bytes(),
        nonce=nonce,
        boot_log=(folder / "uefi_log.bin").read_bytes(),
        ima=(folder / "ima_log.txt").read_bytes(),
    )


def test_the_evidence_of_a_real_server_is_consistent(server):
    consistent = check_consistency(server)
    assert consistent.checked == ("structure", "nonce", "signature", "pcr-digest", "boot-log", "ima")
    assert len(parse_ima(server.ima)) == 780
    assert consistent.quote.clock_info.reset_count == 43
    check_ak(parse_key(server.ak))
    facts = extract_facts(consistent.log)
    assert (facts.secure_boot, facts.findings) == (False, ())
    assert len(parse_boot_log(server.boot_log).events) == 152


@pytest.mark.parametrize("piece", ["quote", "signature", "nonce"])
def test_a_flipped_bit_in_the_real_evidence_is_refused(server, piece):
    content = getattr(server, piece)
    for at in range(0, len(content), max(1, len(content) // 40)):
        changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        with pytest.raises(AttestError):
            check_consistency(replaced(server, **{piece: changed}))


def test_a_changed_removed_or_swapped_runtime_measurement_is_refused(server):
    lines = server.ima.splitlines(keepends=True)
    for changed in (
        lines[:-1],
        lines[1:],
        [*lines[:5], *lines[6:]],
        [lines[0], lines[2], lines[1], *lines[3:]],
        [*lines, lines[-1]],
        [*lines[:7], lines[7][:-2] + b"x\n", *lines[8:]],
    ):
        with pytest.raises(AttestError) as error:
            check_consistency(replaced(server, ima=b"".join(changed)))
        assert error.value.code in ("ima-replay-mismatch", "ima-invalid")


def test_a_changed_pcr_value_of_the_real_evidence_is_refused(server):
    for pcr in range(17):
        values = json.loads(server.pcrs)
        values["sha256"][str(pcr)] = "00" * 31 + "07"
        with pytest.raises(AttestError) as error:
            check_consistency(replaced(server, pcrs=json.dumps(values).encode()))
        assert error.value.code == "pcr-digest-mismatch"


def test_a_changed_digest_or_its_data_in_the_real_log_is_refused(server):
    raw = parse_boot_log(server.boot_log)
    quoted = set(range(17))
    event = next(event for event in raw.events if event.type == EV_EFI_VARIABLE_DRIVER_CONFIG and event.pcr in quoted)
    for content, code in ((event.digest(SHA256), "bootlog-replay-mismatch"), (event.data, "bootlog-data-mismatch")):
        at = server.boot_log.index(content) + len(content) - 1
        changed = server.boot_log[:at] + bytes([server.boot_log[at] ^ 1]) + server.boot_log[at + 1 :]
        with pytest.raises(BootLogRefused) as error:
            check_consistency(replaced(server, boot_log=changed))
        assert error.value.code == code


def replaced(pieces, **changes):
    return EvidencePieces(**({name: getattr(pieces, name) for name in EvidencePieces.__slots__} | changes))


@pytest.mark.parametrize("name", ["gce-cos-85-no-nonce", "gce-cos-85-nonce9009"])
def test_quotes_of_a_real_cloud_machine(attest, name):
    folder = attest / "go-tpm-tools/attestations" / name
    ak = parse_key((folder / "ak_pub.tpmt.bin").read_bytes())
    expected = json.loads((folder / "expected.json").read_text())
    check_ak(ak)
    assert ak.name().hex() == expected["ak"]["name"]
    raw = parse_boot_log((folder / "eventlog.bin").read_bytes())
    for quote in expected["quotes"]:
        bank = quote["alg"]
        path = folder / f"quote-{bank}.bin"
        signature = (folder / f"sig-{bank}.bin").read_bytes()
        arguments = {
            "attest": path.read_bytes(),
            "signature": signature,
            "ak": ak,
            "nonce": bytes.fromhex(quote["extraData"]),
            "pcrs": pcr_values({bank: quote["pcrs"]}),
        }
        if bank == "sha1":
            with pytest.raises(AttestError) as error:
                verify_quote_unanchored(**arguments)
            assert error.value.code == "pcr-selection-mismatch"
        else:
            verified = verify_quote_unanchored(**arguments)
            assert extract_facts(verify_boot_log(raw, verified)).secure_boot is True


def test_a_sha1_quote_of_a_real_windows_machine_is_refused(attest):
    folder = attest / "go-attestation/windows_gcp_shielded_vm"
    pcrs = json.loads((folder / "expected.json").read_text())["pcrs"]
    with pytest.raises(AttestError) as error:
        verify_quote_unanchored(
            attest=(folder / "quote.bin").read_bytes(),
            signature=(folder / "signature.bin").read_bytes(),
            ak=parse_key((folder / "ak_public.tpmt.bin").read_bytes()),
            nonce=b"",
            pcrs=pcr_values(pcrs),
        )
    assert error.value.code == "signature-scheme-refused"


def rsa_public(pem):
    numbers = load_pem_public_key(pem).public_numbers()
    modulus = numbers.n.to_bytes(256, "big")
    return Public(SHA256, Attributes.SIGN, b"", RsaParameters(None, None, 2048, 0, modulus))


def test_a_quote_of_tpm2_tools(attest):
    folder = attest / "keylime/checkquote"
    quote = (folder / "quote.bin").read_bytes()
    blob = (folder / "pcrs.tpm2tools.bin").read_bytes()
    arguments = {
        "attest": quote,
        "signature": (folder / "sig.bin").read_bytes(),
        "ak": rsa_public((folder / "aik.pem").read_bytes()),
        "nonce": (folder / "nonce.txt").read_bytes().strip(),
        "pcrs": {SHA256: {16: blob[0x8E : 0x8E + 32]}},
    }
    assert parse_attest(quote).clock_info.reset_count == 3
    verify_quote_unanchored(**arguments)
    flipped = quote[:5] + bytes([quote[5] ^ 1]) + quote[6:]
    for change in ({"attest": flipped}, {"nonce": b"a" + arguments["nonce"][1:]}, {"pcrs": {SHA256: {16: bytes(32)}}}):
        with pytest.raises(AttestError):
            verify_quote_unanchored(**(arguments | change))
