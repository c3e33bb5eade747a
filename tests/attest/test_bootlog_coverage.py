"""Event data that its digest has to cover: refused where it does not, and left alone where no log covers it."""

import hashlib
from dataclasses import replace

import pytest

from umec_attest.bootlog import parse_boot_log, verify_boot_log
from umec_attest.bootlog.coverage import check_coverage
from umec_attest.tpm.algorithms import HashAlgorithm

OTHER = hashlib.sha256(b"what was measured").digest()
GRUB = b"grub_cmd: set root=hd0\0"


@pytest.fixture
def covered(kit, tpm):
    """Return how many bytes an event has covered, at the end of a good boot; `sha384` is its digest of another bank."""

    def bytes_of(event=None, sha384=None):
        events = kit.good_events() + ([] if event is None else [event])
        raw = parse_boot_log(kit.write_log(events))
        if sha384 is not None:
            last = replace(raw.events[-1], digests=(*raw.events[-1].digests, (HashAlgorithm.SHA384, sha384)))
            raw = replace(raw, events=(*raw.events[:-1], last))
        return check_coverage(verify_boot_log(raw, tpm.quote_of(kit.replay_events(events))))

    return lambda *arguments: bytes_of(*arguments) - bytes_of()


def authority(kit):
    return kit.variable(kit.SECURITY, "db", b"certificate")


@pytest.mark.parametrize("kind", ["ACTION", "CONFIG", "VARIABLE_BOOT", "CRTM", "SEPARATOR"])
def test_data_that_was_not_measured(kit, covered, refused, kind):
    data = kit.variable(kit.GLOBAL, "BootOrder", b"\x01\0")
    with refused("bootlog-data-mismatch"):
        covered(kit.Event(1, kind, data, OTHER))
    assert covered(kit.Event(1, kind, data)) == len(data)


def test_an_authority_that_is_a_variable(kit, covered, refused):
    """Every variable is covered; so is what begins like one of a vendor whose variables say who may boot."""
    data, own, cut = authority(kit), kit.variable(bytes(16), "Mok", b"certificate"), authority(kit)[:-1]
    for wrong in (data, own, cut):
        with refused("bootlog-data-mismatch"):
            covered(kit.Event(7, "AUTHORITY", wrong, OTHER))
        assert covered(kit.Event(7, "AUTHORITY", wrong)) == len(wrong)


def test_an_authority_that_is_a_certificate_alone_is_left_alone(kit, covered):
    assert covered(kit.Event(7, "AUTHORITY", b"0\x82a certificate of older firmware, as it stands", OTHER)) == 0


def test_what_grub_says_that_it_does(kit, covered, refused):
    text = GRUB.removeprefix(b"grub_cmd: ").removesuffix(b"\0")
    for digest in (OTHER, hashlib.sha256(GRUB).digest(), hashlib.sha256(text + b"\0").digest()):
        with refused("bootlog-data-mismatch"):
            covered(kit.Event(9, "IPL", GRUB, digest))
    assert covered(kit.Event(9, "IPL", GRUB, hashlib.sha256(text).digest())) == len(text)


def test_other_words_and_other_types_are_left_alone(kit, covered):
    assert covered(kit.Event(9, "IPL", GRUB.replace(b"grub_cmd", b"grub_etc"), OTHER)) == 0
    assert covered(kit.Event(9, "BLOB", GRUB, OTHER)) == 0


def test_a_digest_of_a_bank_that_was_not_quoted(kit, covered, refused):
    event = kit.Event(7, "AUTHORITY", authority(kit))
    with refused("bootlog-data-mismatch"):
        covered(event, hashlib.sha384(b"other").digest())
    assert covered(event, hashlib.sha384(event.data).digest()) == len(event.data)
