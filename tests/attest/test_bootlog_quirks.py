"""Quirks of real firmware: each is a finding with its own name, none passes silently, and none excuses a forged log."""

import hashlib
import struct

import pytest

from umec_attest.bootlog import (
    EXCUSABLE,
    EXCUSABLE_IN_FORM,
    extract_facts,
    parse_boot_log,
    verify_boot_log,
)
from umec_attest.bootlog.parse import LOG_PADDED, MAX_LOG_SIZE
from umec_attest.offline import EvidencePieces, check_consistency

EXIT = (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")


def ids(facts):
    return {finding.id for finding in facts.findings}


def extended(value, *texts):
    for text in texts:
        value = hashlib.sha256(value + hashlib.sha256(text).digest()).digest()
    return value


@pytest.fixture
def boot(kit, tpm):
    """Verify a log against the quote of a TPM that measured exactly these events, or has these values; the facts."""

    def run(events, **changes):
        values = kit.replay_events(events, changes.pop("start", bytes(32)))
        values |= {int(name.removeprefix("pcr")): value for name, value in changes.items()}
        return extract_facts(verify_boot_log(parse_boot_log(kit.write_log(events)), tpm.quote_of(values)))

    return run


@pytest.fixture
def quiet(kit):
    """A good boot whose log ends before boot services do."""
    return [event for event in kit.good_events() if event.data not in EXIT]


def test_every_quirk_is_a_finding_of_its_own(kit, boot, quiet):
    good = kit.good_events()
    empty = kit.Event(7, "CONFIG", kit.variable(kit.GLOBAL, "SecureBoot", b""))
    early = kit.Event(4, "APPLICATION", b"path", hashlib.sha256(b"early").digest())
    made = {
        "boot-application-early": boot([early, *good]),
        "crtm-version-invalid": boot(good[1:]),
        "exit-boot-services-missing": boot(quiet, pcr5=extended(kit.replay_events(quiet)[5], *EXIT)),
        "secure-boot-variable-empty": boot([*good[:2], empty, *good[3:]]),
    }
    assert {name: ids(facts) for name, facts in made.items()} == {name: {name} for name in made}
    assert made.keys() | EXCUSABLE_IN_FORM == EXCUSABLE.keys()
    assert made["secure-boot-variable-empty"].secure_boot is None
    assert boot(good).findings == ()


# --- the end of boot services ---------------------------------------------------------------------------------------


def test_only_both_actions_in_their_order_are_the_quirk(kit, boot, quiet, refused):
    before = kit.replay_events(quiet)[5]
    for wrong in (EXIT[:1], EXIT[1:], EXIT[::-1], (*EXIT, *EXIT), (*EXIT, b"more")):
        with refused("bootlog-replay-mismatch"):
            boot(quiet, pcr5=extended(before, *wrong))
    assert ids(boot(quiet, pcr5=extended(before, *EXIT))) == {"exit-boot-services-missing"}


def test_the_quirk_excuses_no_other_pcr(kit, boot, quiet, refused):
    pcr5 = extended(kit.replay_events(quiet)[5], *EXIT)
    for pcr in (4, 11, 12):
        with refused("bootlog-replay-mismatch"):
            boot(quiet, pcr5=pcr5, **{f"pcr{pcr}": bytes(31) + b"\1"})


def test_the_quirk_does_not_stand_in_for_a_log_without_pcr_5(boot, quiet, refused):
    silent = [event for event in quiet if event.pcr != 5]
    with refused("bootlog-replay-mismatch"):
        boot(silent, pcr5=extended(bytes(32), *EXIT))


def test_structurally_the_quirk_is_a_mismatch(kit, tpm, quiet, refused):
    """Nobody excused it for a model: what is only looked at for whether it fits itself does not fit."""
    values = kit.replay_events(quiet)
    for pcr5, code in ((values[5], None), (extended(values[5], *EXIT), "bootlog-replay-mismatch")):
        pcrs = {kit.SHA256: values | {5: pcr5}}
        attest = tpm.attest(pcrs).to_bytes()
        shown = {str(pcr): value.hex() for pcr, value in pcrs[kit.SHA256].items()}
        pieces = EvidencePieces(
            attest,
            tpm.sign(attest),
            f'{{"sha256": {shown}}}'.replace("'", '"').encode(),
            ak=tpm.ak.to_bytes(),
            nonce=kit.NONCE,
            boot_log=kit.write_log(quiet),
        )
        if code is None:
            assert "boot-log" in check_consistency(pieces).checked
        else:
            with refused(code):
                check_consistency(pieces)


# --- the form -------------------------------------------------------------------------------------------------------


def uncounted(kit, size=4, behind=b"\xde\xad\xbe\xef"):
    """A Spec ID event that announces vendorInfo and does not count it, as some firmware writes it."""
    return kit.spec_id(tail=bytes([size])) + behind


def test_vendor_info_that_is_not_counted(kit, tpm, refused):
    events, log = kit.good_events(), kit.write_log(kit.good_events(), uncounted(kit))
    with refused("bootlog-vendor-info-size"):
        parse_boot_log(log)
    with refused("bootlog-vendor-info-size"):
        parse_boot_log(log, allow=[LOG_PADDED])
    raw = parse_boot_log(log, allow=EXCUSABLE_IN_FORM)
    facts = extract_facts(verify_boot_log(raw, tpm.quote_of(kit.replay_events(events))))
    assert ids(facts) == {"spec-id-vendor-info-size"}
    counted = parse_boot_log(kit.write_log(events, kit.spec_id(tail=b"\x04vend")), allow=EXCUSABLE_IN_FORM)
    assert counted.findings == ()


def test_vendor_info_beyond_the_end_or_half_counted(kit, refused):
    for wrong in (uncounted(kit, 9), kit.spec_id(tail=b"\x04ve") + b"nd", kit.spec_id(tail=b"\x01vend")):
        with refused("bootlog-invalid"):
            parse_boot_log(wrong, allow=EXCUSABLE_IN_FORM)
    parse_boot_log(uncounted(kit), allow=EXCUSABLE_IN_FORM)


@pytest.fixture
def confidential(kit):
    """A log of confidential computing: of register 1."""
    return (1).to_bytes(4, "little") + kit.write_log(kit.good_events())[4:]


def test_padding_only_where_the_caller_says_so(confidential, refused):
    with refused("bootlog-padded"):
        parse_boot_log(confidential + b"\xff" * 100)
    with refused("bootlog-padded"):
        parse_boot_log(confidential + b"\xff", allow=EXCUSABLE_IN_FORM)
    padded = parse_boot_log(confidential + b"\xff" * 100, allow=[LOG_PADDED])
    assert [finding.id for finding in padded.findings] == [LOG_PADDED]
    whole = parse_boot_log(confidential, allow=[LOG_PADDED])
    assert whole.findings == ()
    assert whole.events == padded.events


def test_a_log_of_a_tpm_has_no_padding(kit, refused):
    log = kit.write_log(kit.good_events())
    with refused("bootlog-padded"):
        parse_boot_log(log + b"\xff" * 100, allow=[LOG_PADDED])
    parse_boot_log(log, allow=[LOG_PADDED])


def test_padding_hides_nothing(kit, confidential, refused):
    event = struct.pack("<IIIH", 1, 13, 1, 0x0B) + bytes(32) + bytes(4)
    for wrong in (b"\xff" * 100 + event, b"\xff" * 100 + b"\0", b"\0" * 100, b"\xff\xfe"):
        with refused("bootlog-invalid"):
            parse_boot_log(confidential + wrong, allow=[LOG_PADDED])
    assert len(parse_boot_log(confidential + event, allow=[LOG_PADDED]).events) == len(kit.good_events()) + 1


def test_an_event_may_end_like_padding(kit, confidential):
    event = struct.pack("<IIIH", 1, 13, 1, 0x0B) + bytes(32) + struct.pack("<I", 4) + b"\xff" * 4
    assert parse_boot_log(confidential + event).events[-1].data == b"\xff" * 4
    assert parse_boot_log(kit.write_log(kit.good_events()) + event).events[-1].data == b"\xff" * 4


def test_64_mib_are_refused_before_a_byte_is_read(refused):
    with refused("bootlog-too-large"):
        parse_boot_log(bytes(64 * 1024 * 1024))
    with refused("bootlog-too-large"):
        parse_boot_log(bytes(MAX_LOG_SIZE + 1))
    with refused("bootlog-invalid"):
        parse_boot_log(b"\xff" * MAX_LOG_SIZE)


# --- H-CRTM ---------------------------------------------------------------------------------------------------------


def test_what_an_h_crtm_measures_comes_first_and_from_locality_4(kit, boot):
    first = kit.Event(0, "HCRTM", b"HCRTM", hashlib.sha256(b"first code").digest())
    locality = kit.Event(0, "NO_ACTION", b"StartupLocality\0\x04")
    good, start = kit.good_events(), bytes(31) + b"\4"
    facts = boot([locality, first, *good], start=start)
    assert (facts.findings, facts.locality) == ((), 4)
    elsewhere = kit.Event(2, "HCRTM", b"HCRTM", bytes(32))
    for events, begin in (
        ([first, *good], bytes(32)),
        ([locality, good[0], first, *good[1:]], start),
        ([locality, first, first, *good], start),
        ([elsewhere, *good], bytes(32)),
        ([locality, first, elsewhere, *good], start),
    ):
        assert ids(boot(events, start=begin)) == {"hcrtm-invalid"}


def test_a_startup_locality_that_the_tpm_did_not_have(kit, boot, refused):
    locality = kit.Event(0, "NO_ACTION", b"StartupLocality\0\x03")
    with refused("bootlog-replay-mismatch"):
        boot([locality, *kit.good_events()])
    with refused("bootlog-replay-mismatch"):
        boot(kit.good_events(), start=bytes(31) + b"\3")
    assert boot([locality, *kit.good_events()], start=bytes(31) + b"\3").locality == 3


# --- the traps of event types that have no other test ---------------------------------------------------------------


def test_an_event_retyped_to_an_ignored_one_and_appended_elsewhere(kit, tpm, refused):
    """As an EV_NO_ACTION it may have no digest; without one, or in another PCR, the quoted value is not reached."""
    good = kit.good_events()
    quote = tpm.quote_of(kit.replay_events(good))
    at = next(n for n, event in enumerate(good) if event.kind == "APPLICATION")
    hidden, rest = good[at], good[:at] + good[at + 1 :]
    for pcr, kind, digest, code in (
        (4, "NO_ACTION", hidden.digest, "bootlog-invalid"),
        (4, "NO_ACTION", bytes(32), "bootlog-replay-mismatch"),
        (8, "APPLICATION", hidden.digest, "bootlog-replay-mismatch"),
        (16, "IPL", hidden.digest, "bootlog-replay-mismatch"),
    ):
        with refused(code):
            verify_boot_log(parse_boot_log(kit.write_log([*rest, kit.Event(pcr, kind, hidden.data, digest)])), quote)
    moved = verify_boot_log(parse_boot_log(kit.write_log([*rest, hidden])), quote)
    assert extract_facts(moved).boot_applications == (hidden.digest.hex(),)
