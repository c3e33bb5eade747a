"""Every boot log of others, through the command: the outcome that its collection states, and no log left out."""

import base64
import hashlib
import json
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner

from umec_attest.bootlog import claimed_facts, parse_boot_log
from umec_attest.bootlog.cel import parse_canonical_log
from umec_attest.bootlog.event_types import EV_NO_ACTION
from umec_attest.bootlog.parse import LOG_PADDED
from umec_attest.bootlog.signatures import parse_database
from umec_attest.errors import BootLogRefused
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_platform.cli import bootlog

pytestmark = pytest.mark.vectors

SHA1, SHA256, SHA384 = HashAlgorithm.SHA1, HashAlgorithm.SHA256, HashAlgorithm.SHA384

REFUSED = {
    "keylime/create-mb-policy/binary_bios_measurements-empty": "bootlog-empty",
    "keylime/create-mb-policy/binary_bios_measurements-bogus": "bootlog-invalid",
    "tpm2-tools/specid-vendordata.bin": "bootlog-vendor-info-size",
    "go-eventlog/ccel/cos-113-intel-tdx-dupe-separator.bin": "bootlog-padded",
    "go-eventlog/ccel/cos-113-intel-tdx.bin": "bootlog-padded",
    "go-eventlog/ccel/event_log.bin": "bootlog-padded",
    "go-eventlog/ccel/cos-113-intel-tdx.table.bin": "bootlog-invalid",
    "go-eventlog/ccel/CCEL.bin": "bootlog-invalid",
}
"""Logs that are not well-formed, or padded where nobody said so; the last two are ACPI tables and no logs."""
LOGS = {
    "go-attestation/linux_tpm12/eventlog.bin": ("sha1", 40),
    "go-attestation/windows_gcp_shielded_vm/eventlog.bin": ("sha1", 21),
    "go-eventlog/ccel/CCEL_unpadded.data.bin": ("confidential-computing", 19),
    "go-eventlog/ccel/cos-113-intel-tdx-dupe-separator-unpadded.bin": ("confidential-computing", 43),
    "go-eventlog/legacy/coreos_36_shielded_vm_no_secure_boot_eventlog": ("crypto-agile", 75),
    "go-eventlog/legacy/crypto_agile_eventlog": ("crypto-agile", 26),
    "go-eventlog/legacy/ebs_event_missing_eventlog": ("sha1", 38),
    "go-eventlog/legacy/option_rom_eventlog": ("sha1", 61),
    "go-eventlog/legacy/sb_cert_eventlog": ("crypto-agile", 14),
    "go-eventlog/legacy/short_no_action_eventlog": ("sha1", 1),
    "go-tpm-tools/attestations/gce-cos-85-no-nonce/eventlog.bin": ("crypto-agile", 44),
    "go-tpm-tools/attestations/gce-cos-85-nonce9009/eventlog.bin": ("crypto-agile", 44),
    "go-tpm-tools/eventlogs/arch-linux-workstation.bin": ("crypto-agile", 24),
    "go-tpm-tools/eventlogs/confidential-gke-debug-251000_eventlog.bin": ("crypto-agile", 54),
    "go-tpm-tools/eventlogs/cos-101-amd-sev.bin": ("crypto-agile", 48),
    "go-tpm-tools/eventlogs/cos-85-amd-sev.bin": ("crypto-agile", 45),
    "go-tpm-tools/eventlogs/cos-93-amd-sev.bin": ("crypto-agile", 45),
    "go-tpm-tools/eventlogs/debian-10.bin": ("sha1", 25),
    "go-tpm-tools/eventlogs/eventlogwithsp800155.bin": ("crypto-agile", 53),
    "go-tpm-tools/eventlogs/gdc-host.bin": ("crypto-agile", 158),
    "go-tpm-tools/eventlogs/glinux-alex.bin": ("crypto-agile", 28),
    "go-tpm-tools/eventlogs/rhel8-uefi.bin": ("crypto-agile", 82),
    "go-tpm-tools/eventlogs/ubuntu-1804-amd-sev.bin": ("crypto-agile", 87),
    "go-tpm-tools/eventlogs/ubuntu-2104-no-dbx.bin": ("crypto-agile", 111),
    "go-tpm-tools/eventlogs/ubuntu-2104-no-secure-boot.bin": ("crypto-agile", 105),
    "go-tpm-tools/eventlogs/ubuntu-2404-amd-sevsnp.bin": ("crypto-agile", 116),
    "hpe-keylime-perf-tests/uefi_log.bin": ("crypto-agile", 152),
    "keylime/create-mb-policy/binary_bios_measurements": ("crypto-agile", 120),
    "keylime/create-mb-policy/binary_bios_measurements-secureboot": ("crypto-agile", 98),
    "keylime/mb_log.bin": ("crypto-agile", 101),
    "tpm2-tools/event-arch-linux.bin": ("crypto-agile", 24),
    "tpm2-tools/event-bootorder.bin": ("crypto-agile", 103),
    "tpm2-tools/event-gce-ubuntu-2104-log.bin": ("crypto-agile", 111),
    "tpm2-tools/event-moklisttrusted.bin": ("crypto-agile", 96),
    "tpm2-tools/event-postcode.bin": ("crypto-agile", 58),
    "tpm2-tools/event-sd-boot-fedora37.bin": ("crypto-agile", 27),
    "tpm2-tools/event-uefi-sha1-log.bin": ("sha1", 17),
    "tpm2-tools/event-uefiaction.bin": ("crypto-agile", 1),
    "tpm2-tools/event-uefiservices.bin": ("crypto-agile", 1),
    "tpm2-tools/event-uefivar.bin": ("crypto-agile", 1),
    "tpm2-tools/event.bin": ("crypto-agile", 1),
}
"""Well-formed logs: their format, and how many events they have (a Spec ID event is none)."""
PCRS = {
    "go-attestation/linux_tpm12/eventlog.bin": "go-attestation/linux_tpm12/expected.json",
    "go-attestation/windows_gcp_shielded_vm/eventlog.bin": "go-attestation/windows_gcp_shielded_vm/expected.json",
    "go-eventlog/legacy/option_rom_eventlog": "go-eventlog/legacy/option_rom_eventlog.expected.json",
    "go-eventlog/legacy/sb_cert_eventlog": "go-eventlog/legacy/sb_cert_eventlog.expected.json",
    "hpe-keylime-perf-tests/uefi_log.bin": "hpe-keylime-perf-tests/expected.json",
} | {name: f"{name}.expected.json" for name in LOGS if name.startswith("go-tpm-tools/eventlogs/")}
"""What the TPMs of these boots held."""


@pytest.fixture(scope="session")
def attest(vectors):
    return vectors / "attest"


@pytest.fixture
def show(tmp_path):
    """Run the command on a file; returns exit status and what it said."""

    def run(path, pcrs=None, **options):
        words = ["show", str(path), "--json"]
        if pcrs is not None:
            (tmp_path / "pcrs.json").write_text(json.dumps(pcrs))
            words += ["--pcrs", str(tmp_path / "pcrs.json")]
        words += [word for name, value in options.items() for word in (f"--{name}", value)]
        said = CliRunner().invoke(bootlog.app, words)
        return said.exit_code, json.loads(said.stdout)

    return run


def facts_of(path, algorithm=SHA256, allow=()):
    return claimed_facts(parse_boot_log(path.read_bytes(), allow=allow), algorithm)


def ids(shown):
    return [finding["id"] for finding in shown["findings"]]


def test_no_log_is_left_out(attest):
    """A file that begins as a boot log does is in one of the tables, and the tables name nothing else."""
    known = {*REFUSED, *LOGS}
    begins = re.compile(rb"(?s)[\0-\x17]\0\0\0.{28}|CCEL|bogus")
    found = set()
    for path in attest.rglob("*"):
        name = str(path.relative_to(attest))
        looks = re.search(r"event|log|bios|ccel|CCEL|specid", name) and path.suffix not in {".json", ".b64", ".md"}
        if path.is_file() and looks and (begins.match(path.read_bytes()[:64]) or not path.stat().st_size):
            found.add(name)
    assert found == known


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_log_is_refused_for_its_reason(attest, show, name):
    status, said = show(attest / name)
    assert (status, said["code"]) == (1, REFUSED[name])


@pytest.mark.parametrize("name", LOGS)
def test_a_good_log_is_shown(attest, show, name):
    status, said = show(attest / name)
    assert (status, said["format"], len(said["events"])) == (0, *LOGS[name])
    assert said["facts"]["claims"] is True


@pytest.mark.parametrize("name", PCRS)
def test_every_bank_replays_to_what_the_tpm_held(attest, show, name):
    expected = json.loads((attest / PCRS[name]).read_text())
    pcrs = expected.get("asserted_pcrs") or expected["pcrs"]
    assert show(attest / name, pcrs)[0] == 0
    for bank, values in pcrs.items():
        for pcr, value in values.items():
            if pcr != "10" and int(pcr) < 16:
                changed = pcrs | {bank: values | {pcr: f"{int(value[0], 16) ^ 1:x}{value[1:]}"}}
                status, said = show(attest / name, changed)
                assert (status, said["code"]) == (1, "bootlog-replay-mismatch"), (bank, pcr)


# --- go-tpm-tools ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "root_hash"),
    [
        ("cos-85", "795872ee03859c10dfcc4d67b4b96c85094b340c2d8784783abc2fa12a6ed671"),
        ("cos-93", "8db95edb446a7311634fc8409e6eab39c66886c4db16aeeef166bbd8fe4ff357"),
        ("cos-101", "48d436350a7e83bde985cd3f7e79fa443557743b42243803ce31104ca4719c5d"),
    ],
)
def test_the_kernel_command_line_of_a_real_boot(attest, name, root_hash):
    facts = facts_of(attest / f"go-tpm-tools/eventlogs/{name}-amd-sev.bin")
    (line,) = facts.command_lines
    assert line.source == "grub"
    assert line.text.startswith("/syslinux/vmlinuz.A init=/usr/lib/systemd/systemd boot=local rootwait ro noresume ")
    assert f"root_hexdigest={root_hash}" in line.text
    assert facts.grub.complete


@pytest.mark.parametrize("name", [name for name in LOGS if LOGS[name][1] > 30 and LOGS[name][0] == "crypto-agile"])
def test_every_authority_of_db_is_in_the_measured_db(attest, name):
    """None of these 20 is unreadable, what older shims log among them; Secure Boot on means that one was used."""
    facts = facts_of(attest / name)
    used = [authority for authority in facts.boot_authorities if authority.variable == "db"]
    assert all(authority.in_db for authority in used)
    assert all(authority.certificate.subject for authority in facts.boot_authorities)
    assert bool(used) or facts.secure_boot is False
    assert facts.command_lines or "fedora" in name or "gke" in name or facts.grub is None


def test_a_boot_without_grub_has_none(attest):
    facts = facts_of(attest / "go-tpm-tools/eventlogs/glinux-alex.bin")
    assert (facts.grub, facts.command_lines) == (None, ())


def certificate(path):
    content = path.read_bytes()
    load = x509.load_pem_x509_certificate if content.startswith(b"-----") else x509.load_der_x509_certificate
    return hashlib.sha256(load(content).public_bytes(Encoding.DER)).hexdigest()


def test_the_databases_of_a_real_machine(attest):
    known = attest / "go-tpm-tools/secure-boot"
    databases = facts_of(attest / "go-tpm-tools/eventlogs/ubuntu-1804-amd-sev.bin").databases
    names = {
        "PK": ["GcePk.crt"],
        "KEK": ["MicCorKEKCA2011_2011-06-24.crt"],
        "db": ["MicWinProPCA2011_2011-10-19.crt", "MicCorUEFCA2011_2011-06-27.crt"],
    }
    for name, files in names.items():
        found = {certificate.sha256 for certificate in databases[name].certificates}
        assert found == {certificate(known / file) for file in files}
        assert databases[name].hashes == ()
    assert len(databases["dbx"].hashes) == 77
    assert databases["dbx"].others == 0


@pytest.mark.parametrize(
    ("name", "hashes", "certificates"),
    [
        ("dbxupdate-2014-08-11.bin", 13, []),
        ("dbxupdate_x64-2020-10-12.bin", 183, ["canonical-boothole.crt", "cisco-boothole.crt", "debian-boothole.crt"]),
        ("dbxupdate_x64-2021-04-29.bin", 211, []),
    ],
)
def test_updates_of_the_list_of_forbidden_signatures(attest, name, hashes, certificates):
    folder = attest / "go-tpm-tools/secure-boot"
    content = (folder / name).read_bytes()
    signed = 16 + int.from_bytes(content[16:20], "little")  # EFI_VARIABLE_AUTHENTICATION_2: time, signature
    found = parse_database(content[signed:])
    assert len(found.hashes) == hashes
    assert {one.sha256 for one in found.certificates} == {certificate(folder / file) for file in certificates}
    assert parse_database(content) is None


def test_a_canonical_log_of_a_real_workload(attest, show, tmp_path):
    log = base64.b64decode((attest / "go-tpm-tools/cel/agent_testdata_cel.b64").read_bytes())
    records = parse_canonical_log(log)
    assert len(records) == 18
    assert all(record.covered(SHA384) for record in records)
    (tmp_path / "cel").write_bytes(log)
    status, said = show(tmp_path / "cel")
    assert (status, said["format"], said["pcrs"]) == (0, "canonical", {})
    assert set(said["registers"]["sha384"]) == {"register 4"}


# --- go-eventlog and go-attestation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "findings"), [("cos-113-intel-tdx", set()), ("cos-113-intel-tdx-dupe-separator", None)]
)
def test_padded_logs_where_padding_is_allowed(attest, show, name, findings):
    folder = attest / "go-eventlog/ccel"
    status, said = show(folder / f"{name}.bin", allow=LOG_PADDED)
    assert status == 0
    assert LOG_PADDED in ids(said)
    if findings is None:
        assert "separator-duplicate" in ids(said)
        assert said["facts"]["secure_boot"] is None
        rtmr = json.loads((folder / "expected.json").read_text())[f"{name}.bin"]["rtmr"]
        assert said["registers"]["sha384"] == {f"RTMR{index}": value for index, value in rtmr.items()}
        assert said["events"] == show(folder / f"{name}-unpadded.bin")[1]["events"]
    else:
        assert set(ids(said)) == {LOG_PADDED}
        assert said["facts"]["secure_boot"] is False
        assert len(said["facts"]["boot_applications"]) == 2
        assert said["facts"]["command_lines"][0]["text"].startswith("/syslinux/vmlinuz.A ")


def test_a_padded_log_of_other_firmware(attest, show):
    status, said = show(attest / "go-eventlog/ccel/event_log.bin", allow=LOG_PADDED)
    assert (status, len(said["events"])) == (0, 27)


def test_who_verified_what_was_started(attest, show):
    legacy = attest / "go-eventlog/legacy"
    certificates = facts_of(legacy / "sb_cert_eventlog")
    assert certificates.secure_boot is True
    assert len(certificates.authorities) == 3
    assert [found.variable for found in certificates.boot_authorities] == ["db", "Shim", "Shim"]
    cards = facts_of(legacy / "option_rom_eventlog", SHA1)
    assert cards.secure_boot is True
    assert [found.in_db for found in cards.boot_authorities] == [True, True]
    assert len(cards.drivers) == 1
    _, shown = show(legacy / "option_rom_eventlog")
    (driver,) = [event for event in shown["events"] if event["type"] == "EV_EFI_BOOT_SERVICES_DRIVER"]
    assert driver["claimed_path"] == "PciRoot(0x0)/Pci(0x2,0x0)/Pci(0x0,0x0)/Offset(0xf600,0x207ff)"


def test_the_missing_end_of_boot_services(attest, show):
    legacy = attest / "go-eventlog/legacy"
    pcrs = json.loads((legacy / "ebs_event_missing_eventlog.expected.json").read_text())["asserted_pcrs"]
    status, said = show(legacy / "ebs_event_missing_eventlog", {"sha1": pcrs["sha1"]})
    assert (status, said["code"]) == (1, "bootlog-replay-mismatch")
    assert "left out the end of boot services" in said["detail"]


def test_a_shielded_machine_of_windows(attest):
    facts = facts_of(attest / "go-attestation/windows_gcp_shielded_vm/eventlog.bin", SHA1)
    assert facts.secure_boot is True


# --- tpm2-tools and keylime -----------------------------------------------------------------------------------------

EVENT = re.compile(r"^(?:- EventNum: \d+\n)?  PCRIndex: ", re.MULTILINE)
DIGEST = re.compile(r'AlgorithmId: (\w+)\s+Digest: "?([0-9a-f]+)')


@pytest.mark.parametrize("name", [name for name in LOGS if name.startswith("tpm2-tools/")])
def test_tpm2_tools_reads_the_same_digests(attest, name):
    path = attest / name
    said = [path.parent / "expected-yaml-raw" / f"{path.name}.yaml", path.with_name(f"{path.name}.yaml")]
    text = next(file for file in said if file.exists()).read_text()
    raw = parse_boot_log(path.read_bytes())
    listed = [DIGEST.findall(event) for event in EVENT.split(text.split("\npcrs:")[0])[1:]]
    if raw.format == "crypto-agile":
        del listed[0]  # the Spec ID event, whose digest is of no bank
    assert [[(bank.label, value.hex()) for bank, value in event.digests] for event in raw.events] == listed


def test_a_loader_of_systemd(attest):
    facts = facts_of(attest / "tpm2-tools/event-sd-boot-fedora37.bin")
    assert {line.source for line in facts.command_lines} == {"stub"}
    assert facts.command_lines[0].text == " console=ttyS0 console=tty0 efi=debug "


def test_the_switch_of_shim(attest):
    shim = facts_of(attest / "tpm2-tools/event-moklisttrusted.bin").shim
    assert shim.mok_list_trusted is True
    assert shim.sbat_level == "sbat,1,2021030218\n"
    assert len(shim.lists) == 3


def test_logs_of_keylime(attest):
    folder = attest / "keylime"
    assert base64.b64decode((folder / "mb_log.b64").read_bytes()) == (folder / "mb_log.bin").read_bytes()
    policies = folder / "create-mb-policy"
    assert facts_of(policies / "binary_bios_measurements").secure_boot is False
    assert facts_of(policies / "binary_bios_measurements-secureboot").secure_boot is True


# --- every log ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in LOGS if LOGS[name][1] > 1])
def test_a_real_log_cut_or_changed_anywhere_is_read_or_refused(attest, name):
    """No crash: some 60 places each."""
    content = (attest / name).read_bytes()
    for at in range(1, len(content), len(content) // 30):
        for changed in (content[:at], content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]):
            try:
                raw = parse_boot_log(changed)
            except BootLogRefused:
                continue
            measured = [event for event in raw.events if event.type != EV_NO_ACTION]
            for bank in raw.algorithms:
                if all(event.digest(bank) is not None for event in measured):
                    try:
                        claimed_facts(raw, bank)
                    except BootLogRefused:
                        continue
