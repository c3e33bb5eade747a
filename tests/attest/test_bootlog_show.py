"""`umec bootlog show` on every kind of log: what it prints, and when it exits non-zero."""

import hashlib
import json
import struct

import pytest
from typer.testing import CliRunner

from umec_platform.cli import bootlog


@pytest.fixture
def show(tmp_path):
    """Run the command on these bytes; options whose value is bytes name a file of them. Returns status and output."""

    def run(content, *, text=False, **options):
        words = ["show", str(file(tmp_path, "log", content)), *([] if text else ["--json"])]
        for name, value in options.items():
            words += [f"--{name}", str(file(tmp_path, name, value)) if isinstance(value, bytes) else value]
        result = CliRunner().invoke(bootlog.app, words)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output if text else json.loads(result.stdout)

    return run


def file(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


def pcrs(values, bank="sha256"):
    return json.dumps({bank: {str(pcr): value.hex() for pcr, value in values.items()}}).encode()


@pytest.fixture
def log(kit):
    return kit.write_log(kit.good_events())


@pytest.fixture
def values(kit):
    return kit.replay_events(kit.good_events())


def test_facts_are_claims(show, log):
    status, shown = show(log)
    assert status == 0
    assert list(shown) == ["format", "events", "pcrs", "facts", "findings"]
    assert shown["facts"]["claims"] is True
    assert [event["covered"] for event in shown["events"][:3]] == [True, None, True]
    _, text = show(log, text=True)
    assert "claims, which nothing proves without a quote:" in text
    assert "  secure_boot = true" in text.splitlines()


def test_data_that_its_digest_is_not_of_is_marked(kit, show):
    events = [*kit.good_events(), kit.Event(5, "ACTION", b"another", bytes(32))]
    status, shown = show(kit.write_log(events))
    assert status == 0
    assert shown["events"][-1]["covered"] is False
    assert [finding["id"] for finding in shown["findings"]] == ["event-data-mismatch"]
    assert "PCR  5  ! EV_EFI_ACTION" in show(kit.write_log(events), text=True)[1]


def test_a_log_does_not_write_to_the_terminal(kit, show):
    """Whoever made a log does not say what a terminal does."""
    path = "\x1b[2Jevil\x9b".encode("utf-16-le")
    body = struct.pack("<BBH", 4, 4, 4 + len(path)) + path
    image = kit.Event(4, "APPLICATION", struct.pack("<QQQQ", 0, 0, 0, len(body)) + body, bytes(32))
    line = kit.Event(12, "IPL", "quiet\x1b]\x9b0m".encode("utf-16-le"))
    log = kit.write_log([*kit.good_events(), image, line])
    assert show(log)[1]["events"][-2]["claimed_path"] == "\x1b[2Jevil\x9b"
    status, text = show(log, text=True)
    assert status == 0
    assert "[2Jevil" in text
    assert "quiet" in text
    assert all(letter == "\n" or letter.isprintable() for letter in text)


# --- --pcrs ---------------------------------------------------------------------------------------------------------


def test_it_has_to_replay_to_given_values(show, log, values):
    assert show(log, pcrs=pcrs(values))[0] == 0
    assert show(log, pcrs=pcrs(values | {10: b"\1" * 32, 17: b"\xff" * 32}))[0] == 0
    for wrong in ({4: bytes(32)}, {13: b"\1" * 32}, {15: b"\1" * 32}):
        status, shown = show(log, pcrs=pcrs(values | wrong))
        assert (status, shown["code"]) == (1, "bootlog-replay-mismatch")


def test_a_late_pcr_that_the_log_names_counts(kit, show, values):
    events = [*kit.good_events(), kit.Event(16, "IPL", b"debug")]
    value = hashlib.sha256(bytes(32) + hashlib.sha256(b"debug").digest()).digest()
    assert show(kit.write_log(events), pcrs=pcrs(values | {16: value}))[0] == 0
    assert show(kit.write_log(events), pcrs=pcrs(values | {16: bytes(32)}))[0] == 1


def test_values_that_compare_with_nothing(show, log, values):
    for nothing in (
        pcrs({10: bytes(32)}),
        pcrs({13: bytes(32)}),
        pcrs({}),
        pcrs({0: bytes(48)}, "sha384"),
        json.dumps(json.loads(pcrs(values)) | {"sha384": {"0": "00" * 48}}).encode(),
    ):
        status, shown = show(log, pcrs=nothing)
        assert (status, shown["code"]) == (1, "bootlog-replay-mismatch")
    assert show(log, pcrs=pcrs({0: values[0]}))[0] == 0


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b"{}", b'{"sha256": {"0": "00"}}'])
def test_values_that_are_none(show, log, values, content):
    status, shown = show(log, pcrs=content)
    assert (status, shown["code"]) == (1, "pcr-values-invalid")
    assert show(log, pcrs=pcrs(values))[0] == 0


def test_the_missing_end_of_boot_services_is_named_and_refused(kit, show):
    quiet = [event for event in kit.good_events() if not event.data.startswith(b"Exit")]
    values = kit.replay_events(quiet)
    for text in (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success"):
        values[5] = hashlib.sha256(values[5] + hashlib.sha256(text).digest()).digest()
    status, shown = show(kit.write_log(quiet), pcrs=pcrs(values))
    assert (status, shown["code"]) == (1, "bootlog-replay-mismatch")
    assert "as if it left out the end of boot services" in shown["detail"]


# --- other logs -----------------------------------------------------------------------------------------------------


def record(pcr, text, bank="sha256"):
    digests = [{"hashAlg": bank, "digest": hashlib.new(bank, text.encode()).hexdigest()}]
    content = {"string": text, "eventType": "phase"}
    made = {"pcr": pcr, "digests": digests, "content_type": "systemd", "content": content}
    return b"\x1e" + json.dumps(made).encode() + b"\n"


def test_with_systemds_log_behind_it(show, log, values):
    later = values | {11: hashlib.sha256(values[11] + hashlib.sha256(b"enter-initrd").digest()).digest()}
    status, shown = show(log, userspace=record(11, "enter-initrd"), pcrs=pcrs(later))
    assert status == 0
    assert shown["facts"]["userspace"][0]["text"] == "enter-initrd"
    assert shown["pcrs"]["sha256"]["11"] == later[11].hex()
    assert show(log, pcrs=pcrs(later))[0] == 1
    status, shown = show(log, userspace=b"no log")
    assert (status, shown["code"]) == (1, "userspace-log-invalid")


def test_a_bank_that_systemd_did_not_measure_into_is_not_replayed_any_further(show, log):
    status, shown = show(log, userspace=record(11, "enter-initrd", "sha384"))
    assert (status, shown["pcrs"]) == (0, {})


def test_systemds_log_alone(show):
    status, shown = show(record(11, "enter-initrd") + record(15, "machine-id:00"))
    assert (status, shown["format"]) == (0, "systemd-userspace")
    once = hashlib.sha256(bytes(32) + hashlib.sha256(b"machine-id:00").digest()).hexdigest()
    assert shown["pcrs"]["sha256"]["15"] == once
    assert [event["covered"] for event in shown["events"]] == [True, True]
    assert show(record(11, "enter-initrd"), pcrs=pcrs({15: bytes.fromhex(once)}))[0] == 1
    assert show(record(15, "machine-id:00"), pcrs=pcrs({15: bytes.fromhex(once)}))[0] == 0


def test_systemds_log_goes_on_behind_a_firmwares_alone(show, log):
    later = record(11, "enter-initrd")
    assert show(later, text=True, userspace=later)[0] == 2
    assert show(log, userspace=later)[0] == 0


def test_an_nv_index_is_shown_and_not_replayed(show):
    line = record(11, "enter-initrd").replace(b'"pcr": 11', b'"nv_index": 30474752')
    status, shown = show(line)
    assert (status, shown["pcrs"], shown["events"][0]["pcr"]) == (0, {"sha256": {}}, None)
    assert show(line, text=True)[0] == 0


@pytest.fixture
def confidential(log):
    return (1).to_bytes(4, "little") + log[4:]


def test_registers_of_confidential_computing_are_no_pcrs(show, confidential, values):
    status, shown = show(confidential)
    assert (status, shown["format"], shown["pcrs"]) == (0, "confidential-computing", {})
    assert shown["registers"]["sha256"]["RTMR0"]
    assert shown["register_of_index"]["0"] == "MRTD"
    assert "RTMR3" in show(confidential, text=True)[1]
    for options in ({"pcrs": pcrs(values)}, {"userspace": record(11, "enter-initrd")}):
        status, shown = show(confidential, **options)
        assert (status, shown["code"]) == (1, "bootlog-other-registers")


def test_padding_is_allowed_by_option(show, confidential):
    padded = confidential + b"\xff" * 64
    status, shown = show(padded)
    assert (status, shown["code"]) == (1, "bootlog-padded")
    assert show(confidential, text=True, allow="anything")[0] == 2
    status, shown = show(padded, allow="log-padded")
    assert status == 0
    assert "log-padded" in {finding["id"] for finding in shown["findings"]}


def test_a_canonical_log(show, values):
    field = b"\x50\0\0\0\1x"
    digest = hashlib.sha256(field).digest()
    content = bytes(4) + b"\x08" + bytes(8) + b"\x6c\0\0\0\1\4" + b"\3\0\0\0\x25\x0b\0\0\0\x20" + digest + field
    status, shown = show(content)
    assert (status, shown["format"], shown["pcrs"]) == (0, "canonical", {})
    assert shown["registers"]["sha256"]["register 4"] == hashlib.sha256(bytes(32) + digest).hexdigest()
    assert shown["events"][0]["covered"] is True
    assert "register 4" in show(content, text=True)[1]
    assert show(content, pcrs=pcrs(values))[1]["code"] == "bootlog-other-registers"
    assert show(content + b"\0")[1]["code"] == "canonical-log-invalid"
