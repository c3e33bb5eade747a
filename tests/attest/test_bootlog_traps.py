"""Forged, cut, re-typed and malformed boot logs, one fault each; the log without the fault is good."""

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.bootlog import claimed_facts, extract_facts, parse_boot_log, replay, verify_boot_log
from umec_attest.bootlog.efi import parse_variable
from umec_attest.bootlog.parse import MAX_EVENTS, MAX_LOG_SIZE
from umec_attest.errors import BootLogInvalid, BootLogRefused
from umec_attest.tpm.algorithms import HashAlgorithm

SHA256 = HashAlgorithm.SHA256


@pytest.fixture
def boot(kit, tpm):
    """Verify a log against the quote of a TPM that measured exactly these events; returns the facts."""

    def run(events, start=bytes(32)):
        quote = tpm.quote_of(kit.replay_events(events, start))
        return extract_facts(verify_boot_log(parse_boot_log(kit.write_log(events)), quote))

    return run


def ids(facts):
    return {finding.id for finding in facts.findings}


def test_a_good_boot_gives_all_facts(kit, boot):
    facts = boot(kit.good_events())
    assert facts.findings == ()
    assert facts.secure_boot is True
    assert facts.variables["PK"] == hashlib.sha256(b"pk").hexdigest()
    assert set(facts.variables) == {"PK", "KEK", "db", "dbx"}
    assert facts.boot_applications == (hashlib.sha256(b"the image").hexdigest(),)
    assert facts.uki_sections == {".linux": hashlib.sha256(b"kernel").hexdigest()}
    assert len(facts.authorities) == 1


def test_secure_boot_off_is_a_fact(kit, boot):
    events = kit.good_events()
    events[2] = kit.Event(7, "CONFIG", kit.variable(kit.GLOBAL, "SecureBoot", b"\0"))
    assert boot(events).secure_boot is False


# --- replay ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def verify(kit, tpm):
    """Verify a log against the quote of a machine that booted well."""
    quote = tpm.quote_of(kit.replay_events(kit.good_events()))
    return lambda log: verify_boot_log(parse_boot_log(log), quote)


def test_a_log_of_another_boot(kit, verify, refused):
    events = kit.good_events()
    events[1].digest = hashlib.sha256(b"other firmware").digest()
    with refused("bootlog-replay-mismatch"):
        verify(kit.write_log(events))
    verify(kit.write_log(kit.good_events()))


def test_removed_swapped_and_added_events(kit, verify, refused):
    good = kit.good_events()
    for at in range(len(good)):
        with refused("bootlog-replay-mismatch"):
            verify(kit.write_log(good[:at] + good[at + 1 :]))
    with refused("bootlog-replay-mismatch"):
        verify(kit.write_log([good[1], good[0], *good[2:]]))
    with refused("bootlog-replay-mismatch"):
        verify(kit.write_log([*good, kit.Event(4, "IPL", b"more")]))


def test_a_truncated_tail(kit, verify, refused):
    """Cut so that whole PCRs are gone: the remaining ones still replay."""
    good = kit.good_events()
    for gone in ({5}, {11}, {6}):
        with refused("bootlog-replay-mismatch"):
            verify(kit.write_log([event for event in good if event.pcr not in gone]))


def test_pcrs_that_were_not_quoted_prove_nothing(kit, tpm):
    events = [*kit.good_events(), kit.Event(8, "IPL", b"kernel_cmdline: quiet")]
    quote = tpm.quote_of(kit.replay_events(events))
    log = verify_boot_log(parse_boot_log(kit.write_log(events)), quote)
    assert all(event.pcr != 8 for event in log.events)


def test_a_pcr_extended_after_boot(kit, tpm, refused):
    values = kit.replay_events(kit.good_events())
    log = parse_boot_log(kit.write_log(kit.good_events()))
    for pcr in (4, 12, 14):
        changed = values | {pcr: hashlib.sha256(values[pcr] + bytes(32)).digest()}
        with refused("bootlog-replay-mismatch"):
            verify_boot_log(log, tpm.quote_of(changed))
    verify_boot_log(log, tpm.quote_of(values))


def test_empty_logs(kit, verify, refused):
    with refused("bootlog-empty"):
        parse_boot_log(b"")
    with refused("bootlog-empty"):
        verify(kit.spec_id())


def test_a_bank_without_digests(kit, refused):
    raw = parse_boot_log(kit.write_log(kit.good_events()))
    with refused("bootlog-invalid"):
        replay(raw, HashAlgorithm.SHA384)


def test_old_logs_are_shown_and_never_believed(kit, tpm, refused):
    log = struct.pack("<II20sI", 4, 4, hashlib.sha1(bytes(4), usedforsecurity=False).digest(), 4) + bytes(4)
    raw = parse_boot_log(log)
    assert raw.format == "sha1"
    assert 4 in replay(raw, HashAlgorithm.SHA1)
    quote = tpm.quote_of(kit.replay_events(kit.good_events()))
    with refused("bootlog-sha1-only"):
        verify_boot_log(raw, quote)
    with refused("bootlog-sha1-only"):
        verify_boot_log(parse_boot_log(kit.spec_id(((0x04, 20),))), quote)
    verify_boot_log(parse_boot_log(kit.write_log(kit.good_events())), quote)


def test_a_log_of_another_register_file_is_not_believed(kit, tpm, refused):
    head = kit.spec_id()
    confidential = (1).to_bytes(4, "little") + head[4:]
    quote = tpm.quote_of(kit.replay_events(kit.good_events()))
    raw = parse_boot_log(kit.write_log(kit.good_events(), confidential))
    assert raw.format == "confidential-computing"
    with refused("bootlog-other-registers"):
        verify_boot_log(raw, quote)
    with refused("bootlog-invalid"):
        parse_boot_log((2).to_bytes(4, "little") + head[4:])
    verify_boot_log(parse_boot_log(kit.write_log(kit.good_events(), head)), quote)


# --- StartupLocality ------------------------------------------------------------------------------------------------


def test_startup_locality(kit, boot, refused):
    events = kit.good_events()
    locality = kit.Event(0, "NO_ACTION", b"StartupLocality\0\x03")
    assert boot([locality, *events], bytes(31) + b"\x03").findings == ()
    for forged in (
        [*events, locality],
        [locality, locality, *events],
        [kit.Event(0, "NO_ACTION", b"StartupLocality\0\x02"), *events],
        [kit.Event(0, "NO_ACTION", b"StartupLocality\0"), *events],
        [kit.Event(0, "NO_ACTION", b"StartupLocality\0\x03\0"), *events],
        [kit.Event(1, "NO_ACTION", b"StartupLocality\0\x03"), *events],
    ):
        with refused("bootlog-invalid"):
            boot(forged, bytes(31) + b"\x03")
    with refused("bootlog-replay-mismatch"):
        boot([locality, *events])


# --- facts only from what digests cover -----------------------------------------------------------------------------


def changed(events, at, **members):
    events = list(events)
    old = events[at]
    data = {"pcr": old.pcr, "kind": old.kind, "data": old.data, "digest": old.digest} | members
    events[at] = type(old)(**data)
    return events


def test_data_that_its_digest_does_not_cover(kit, boot):
    """Secure Boot was off; the log claims on, and keeps the digest that replays."""
    off, on = (kit.variable(kit.GLOBAL, "SecureBoot", value) for value in (b"\0", b"\x01"))
    facts = boot(changed(kit.good_events(), 2, data=on, digest=hashlib.sha256(off).digest()))
    assert facts.secure_boot is None
    assert "event-data-mismatch" in ids(facts)


def test_a_secure_boot_variable_after_the_separator(kit, boot):
    events = kit.good_events()
    events.append(kit.Event(7, "CONFIG", kit.variable(kit.GLOBAL, "SecureBoot", b"\x01")))
    facts = boot(events)
    assert facts.secure_boot is None
    assert "secure-boot-variable-late" in ids(facts)


def test_a_secure_boot_variable_twice_absent_or_empty(kit, boot):
    good = kit.good_events()
    on = kit.variable(kit.GLOBAL, "SecureBoot", b"\x01")
    for events, finding in (
        ([kit.Event(7, "CONFIG", on), *good], "secure-boot-variable-repeated"),
        (good[:2] + good[3:], "secure-boot-unknown"),
        (changed(good, 2, data=kit.variable(kit.GLOBAL, "SecureBoot", b"")), "secure-boot-variable-empty"),
        (changed(good, 2, data=kit.variable(kit.GLOBAL, "SecureBoot", b"\x02")), "secure-boot-variable-invalid"),
        (changed(good, 2, data=kit.variable(kit.SECURITY, "SecureBoot", b"\x01")), "secure-boot-unknown"),
        (changed(good, 2, data=on[:-1]), "secure-boot-variable-invalid"),
    ):
        facts = boot(events)
        assert facts.secure_boot is None
        assert finding in ids(facts)


def test_a_variable_retyped_to_hide_it(kit, boot):
    good = kit.good_events()
    for events in (changed(good, 2, kind="IPL"), [*good, kit.Event(7, "IPL", b"more")]):
        facts = boot(events)
        assert facts.secure_boot is None
        assert "secure-boot-event-unexpected" in ids(facts)


def test_a_log_without_pcr_7_says_nothing_about_secure_boot(kit):
    events = [event for event in kit.good_events() if event.pcr != 7]
    facts = claimed_facts(parse_boot_log(kit.write_log(events)), SHA256)
    assert facts.secure_boot is None
    assert ids(facts) == {"secure-boot-unknown"}


def test_separators(kit, boot):
    good = kit.good_events()
    separator = next(n for n, event in enumerate(good) if event.kind == "SEPARATOR" and event.pcr == 7)
    for events, finding in (
        (good[:separator] + good[separator + 1 :], "separator-missing"),
        ([*good, kit.Event(7, "SEPARATOR", bytes(4))], "separator-duplicate"),
        (changed(good, separator, kind="AUTHORITY"), "separator-retyped"),
        (changed(good, separator, data=b"zero"), "separator-invalid"),
        (changed(good, separator, data=b"\x01\0\0\0"), "firmware-error"),
        (
            changed(good, separator, data=b"\xff\xff\xff\xff", digest=hashlib.sha256(bytes(4)).digest()),
            "event-data-mismatch",
        ),
    ):
        facts = boot(events)
        assert finding in ids(facts)
        assert facts.secure_boot is None
    assert boot(changed(good, separator, data=b"\xff\xff\xff\xff")).findings == ()


def test_a_boot_variable_may_have_the_bytes_of_a_separator(kit, boot):
    error, good = b"\x01\0\0\0", kit.good_events()
    digest = hashlib.sha256(error).digest()
    order = kit.variable(kit.GLOBAL, "BootOrder", error)
    assert boot([*good, kit.Event(1, "VARIABLE_BOOT", order, digest)]).findings == ()
    for wrong in (
        kit.Event(1, "VARIABLE_BOOT", kit.variable(kit.GLOBAL, "BootOrder", b"\x02\0\0\0"), digest),
        kit.Event(1, "VARIABLE_BOOT", b"no variable", digest),
        kit.Event(2, "VARIABLE_BOOT", order, digest),
        kit.Event(1, "CONFIG", order, digest),
    ):
        assert "separator-retyped" in ids(boot([*good, wrong]))


def test_a_boot_application_retyped_to_an_action_is_still_one(kit, boot):
    good = kit.good_events()
    at = next(n for n, event in enumerate(good) if event.kind == "APPLICATION")
    for kind in ("ACTION", "IPL", "SEPARATOR"):
        facts = boot(changed(good, at, kind=kind))
        assert facts.boot_applications == (hashlib.sha256(b"the image").hexdigest(),)


def test_a_boot_application_before_the_call(kit, boot):
    application = kit.Event(4, "APPLICATION", b"path", hashlib.sha256(b"driver").digest())
    facts = boot([application, *kit.good_events()])
    assert ids(facts) == {"boot-application-early"}
    assert len(facts.boot_applications) == 2


def test_the_version_of_the_first_code(kit, boot):
    good = kit.good_events()
    for events in (good[1:], [good[0], *good], changed(good, 0, digest=bytes(31) + b"\x01")):
        assert "crtm-version-invalid" in ids(boot(events))


def test_sections_of_the_image(kit, boot):
    good = kit.good_events()
    name = kit.Event(11, "IPL", ".cmdline".encode("utf-16-le"), hashlib.sha256(b".cmdline\0").digest())
    content = kit.Event(11, "IPL", b".cmdline", hashlib.sha256(b"quiet").digest())
    assert ".cmdline" in boot([*good, name, content]).uki_sections
    liar = kit.Event(11, "IPL", b".cmdline\0", hashlib.sha256(b".evil\0").digest())
    for events, finding in (
        ([*good, name], "uki-event-unexpected"),
        ([*good, liar, content], "uki-event-unexpected"),
        ([*good, name, content, name, content], "uki-section-repeated"),
    ):
        assert finding in ids(boot(events))


# --- malformed logs -------------------------------------------------------------------------------------------------


def test_no_action_with_a_digest(kit, refused):
    events = [*kit.good_events(), kit.Event(4, "NO_ACTION", b"hidden", hashlib.sha256(b"x").digest())]
    with refused("bootlog-invalid"):
        parse_boot_log(kit.write_log(events))


@pytest.mark.parametrize(
    "head",
    [
        {"algorithms": ((0x0B, 32), (0x0B, 32))},
        {"algorithms": ((0x0B, 20),)},
        {"algorithms": ((0x99, 32),)},
        {"algorithms": ()},
        {"count": 2},
        {"count": 0xFFFFFFFF},
        {"tail": b""},
        {"tail": b"\0\0"},
        {"tail": b"\x05vend"},
    ],
)
def test_bad_spec_id_events(kit, refused, head):
    with refused("bootlog-invalid"):
        parse_boot_log(kit.write_log(kit.good_events(), kit.spec_id(**head)))
    with refused("bootlog-invalid"):
        parse_boot_log(kit.spec_id(**head))
    assert parse_boot_log(kit.spec_id()).events == ()


def test_bad_digest_lists(kit, refused):
    head = kit.spec_id(((0x0B, 32), (0x0C, 48)))
    sha256, sha384 = struct.pack("<H", 0x0B) + bytes(32), struct.pack("<H", 0x0C) + bytes(48)
    for count, digests, good in (
        (1, sha256, True),
        (2, sha256 + sha384, True),
        (2, sha256 + sha256, False),
        (0, b"", False),
        (3, sha256 + sha384 + sha256, False),
        (1, struct.pack("<H", 0x04) + bytes(20), False),
        (1, struct.pack("<H", 0x99) + bytes(32), False),
        (0xFFFFFFFF, sha256, False),
    ):
        log = head + struct.pack("<III", 4, 13, count) + digests + struct.pack("<I", 0)
        if good:
            assert len(parse_boot_log(log).events) == 1
        else:
            with refused("bootlog-invalid"):
                parse_boot_log(log)


def test_sizes_and_indices_out_of_range(kit, refused):
    good = kit.write_log(kit.good_events())
    event = struct.pack("<IIIH", 24, 13, 1, 0x0B) + bytes(32)
    for tail in (b"\0", bytes(64), b"\xff" * 64 + b"\0", event + struct.pack("<I", 0)):
        with refused("bootlog-invalid"):
            parse_boot_log(good + tail)
    for size in (0x47EFBFBD, 0xFFFFFFFF, 1):
        with refused("bootlog-invalid"):
            parse_boot_log(good + struct.pack("<IIIH", 4, 13, 1, 0x0B) + bytes(32) + struct.pack("<I", size))
    parse_boot_log(good + struct.pack("<IIIH", 4, 13, 1, 0x0B) + bytes(32) + struct.pack("<I", 0))


def test_every_truncation(kit, verify):
    good = kit.write_log(kit.good_events())
    for size in range(0, len(good), 7):
        with pytest.raises(BootLogRefused):
            verify(good[:size])


def test_limits(kit, refused):
    with refused("bootlog-too-large"):
        parse_boot_log(kit.write_log([kit.Event(4, "IPL", bytes(MAX_LOG_SIZE))]))
    event = kit.Event(4, "IPL", b"")
    with refused("bootlog-too-large"):
        parse_boot_log(kit.write_log([event] * (MAX_EVENTS + 1)))
    parse_boot_log(kit.write_log([event] * MAX_EVENTS))


@given(data=st.binary(max_size=400), with_head=st.booleans())
def test_any_bytes_give_a_log_or_the_one_error(kit, data, with_head):
    try:
        raw = parse_boot_log((kit.spec_id() if with_head else b"") + data)
    except BootLogInvalid:
        return
    assert raw.events or with_head


@given(data=st.binary(max_size=200))
def test_any_bytes_give_a_variable_or_none(data):
    found = parse_variable(data)
    assert found is None or len(data) >= 32 + len(found.data)


def test_a_spec_id_event_of_another_version_or_with_a_digest(kit, refused):
    good = kit.spec_id()
    for at in (8, 32 + 20, 32 + 21, 32 + 23):  # digest, minor and major version, size of a UINTN
        with refused("bootlog-invalid"):
            parse_boot_log(good[:at] + b"\x09" + good[at + 1 :])
    parse_boot_log(good)
