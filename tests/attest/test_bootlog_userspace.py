"""systemd's log of what userspace measured: forms that are refused, and how it goes on behind the firmware's log."""

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.bootlog import extract_facts, parse_boot_log, parse_userspace_log, verify_boot_log
from umec_attest.bootlog.userspace import MAX_RECORD_SIZE, MAX_RECORDS, MAX_USERSPACE_LOG_SIZE, follow
from umec_attest.errors import UserspaceLogInvalid
from umec_attest.tpm.algorithms import HashAlgorithm

SHA256, SHA384 = HashAlgorithm.SHA256, HashAlgorithm.SHA384
PHASES = [(11, "enter-initrd"), (11, "leave-initrd"), (15, "machine-id:4691595be6a345f1833cc75fab63e475")]


def record(pcr=11, text="enter-initrd", kind="phase", digest=None, **members):
    """A record as systemd writes it; a member that is None is left out."""
    value = hashlib.sha256(text.encode()).hexdigest() if digest is None else digest
    made = {
        "pcr": pcr,
        "digests": [{"hashAlg": "sha256", "digest": value}],
        "content_type": "systemd",
        "content": {"string": text, "bootId": "ab" * 16, "timestamp": 1515761, "eventType": kind},
    } | members
    return b"\x1e" + json.dumps({name: member for name, member in made.items() if member is not None}).encode() + b"\n"


def log(pairs=PHASES):
    return b"".join(record(pcr, text) for pcr, text in pairs)


# --- the form -------------------------------------------------------------------------------------------------------


def test_a_log_of_systemd():
    first, second, third = parse_userspace_log(log())
    assert (first.pcr, first.text, first.kind) == (11, "enter-initrd", "phase")
    assert second.proven_text(SHA256) == "leave-initrd"
    assert third.digest(SHA256) == hashlib.sha256(PHASES[2][1].encode()).digest()
    assert third.digest(SHA384) is None
    assert parse_userspace_log(b"") == ()


def test_an_nv_index_is_no_pcr():
    (found,) = parse_userspace_log(record(pcr=None, nv_index=0x1D10200))
    assert found.pcr is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"pcr": 24},
        {"pcr": -1},
        {"pcr": True},
        {"pcr": "11"},
        {"pcr": 11.0},
        {"pcr": None},
        {"nv_index": 1},
        {"digests": []},
        {"digests": None},
        {"digests": {}},
        {"digests": ["sha256"]},
        {"digests": [{"hashAlg": "sha256"}]},
        {"digests": [{"hashAlg": "md5", "digest": "00" * 16}]},
        {"digests": [{"hashAlg": "sha256", "digest": "00" * 31}]},
        {"digests": [{"hashAlg": "sha256", "digest": "AA" * 32}]},
        {"digests": [{"hashAlg": "sha256", "digest": "0 0" * 32}]},
        {"digests": [{"hashAlg": "sha256", "digest": 7}]},
        {"digests": [{"hashAlg": ["sha256"], "digest": "00" * 32}]},
        {"digests": [{"hashAlg": "sha256", "digest": "00" * 32, "more": 1}]},
        {"digests": [{"hashAlg": "sha256", "digest": "00" * 32}] * 2},
        {"content_type": "ima_template"},
        {"content": "enter-initrd"},
        {"content": {"string": 7}},
        {"content": {"eventType": 7}},
        {"more": 1},
    ],
)
def test_records_of_another_form(refused, wrong):
    with refused("userspace-log-invalid"):
        parse_userspace_log(record() + record(**wrong))
    parse_userspace_log(record() + record())


@pytest.mark.parametrize(
    "text",
    [
        record()[1:],
        record()[:-1],
        record() + b"\x1e",
        record() + b"\x1e\n",
        b"\x1e[]\n",
        b'\x1e{"pcr": 11, "pcr": 11}\n',
        record().replace(b'"pcr": 11', b'"pcr": 11, "pcr": 12'),
        b"\x1e" + b"[" * (MAX_RECORD_SIZE - 8) + b"\n",
        b"\x1e\xff\n",
        record()[:-2] + b"\0}\n",
    ],
)
def test_texts_that_are_no_record(refused, text):
    with refused("userspace-log-invalid"):
        parse_userspace_log(text)
    parse_userspace_log(record())


def test_every_truncation_of_a_record():
    good = log()
    ends = {len(log(PHASES[:count])) for count in range(4)}
    for size in range(len(good)):
        if size in ends:
            assert len(parse_userspace_log(good[:size])) == sorted(ends).index(size)
        else:
            with pytest.raises(UserspaceLogInvalid):
                parse_userspace_log(good[:size])


def test_logs_beyond_the_limits(refused):
    long = record(text="x" * (MAX_RECORD_SIZE - 400))
    for large in (
        long * (MAX_USERSPACE_LOG_SIZE // len(long) + 1),
        b"\x1e" * (MAX_RECORDS + 1),
        record(text="x" * MAX_RECORD_SIZE),
    ):
        with refused("userspace-log-too-large"):
            parse_userspace_log(large)
    with refused("userspace-log-invalid"):
        parse_userspace_log(b"\x1e" * MAX_RECORDS)
    parse_userspace_log(long * (MAX_USERSPACE_LOG_SIZE // len(long)))


@given(data=st.binary(max_size=300), framed=st.booleans())
def test_any_bytes_give_records_or_the_one_error(data, framed):
    try:
        records = parse_userspace_log(b"\x1e" + data + b"\n" if framed else data)
    except UserspaceLogInvalid:
        return
    assert all(found.digests for found in records)


@given(
    member=st.sampled_from(["pcr", "nv_index", "digests", "content", "content_type", "recnum"]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["hashAlg", "digest"]), inner),
        max_leaves=6,
    ),
)
def test_any_member_gives_a_record_or_the_one_error(member, value):
    try:
        (found,) = parse_userspace_log(record(**{member: value}))
    except UserspaceLogInvalid:
        return
    assert found.pcr is None or 0 <= found.pcr < 24


# --- behind the firmware's log ---------------------------------------------------------------------------------------


@pytest.fixture
def boot(kit, tpm):
    """Verify a good boot whose TPM measured these texts afterwards, with a userspace log; returns the replayed log."""

    def run(userspace, measured=PHASES):
        values = kit.replay_events(kit.good_events()) | {15: bytes(32)}
        for pcr, text in measured:
            digest = hashlib.sha256(text.encode()).digest()
            values[pcr] = hashlib.sha256(values[pcr] + digest).digest()
        raw = parse_boot_log(kit.write_log(kit.good_events()))
        return verify_boot_log(raw, tpm.quote_of(values), parse_userspace_log(userspace))

    return run


def test_userspace_goes_on_where_the_firmware_ends(boot, refused):
    facts = extract_facts(boot(log()))
    assert facts.findings == ()
    assert [(fact.pcr, fact.text) for fact in facts.userspace] == PHASES
    with refused("bootlog-replay-mismatch"):
        boot(b"")


def test_a_record_changed_removed_swapped_or_added(boot, refused):
    for wrong in (
        PHASES[1:],
        PHASES[:-1],
        [PHASES[1], PHASES[0], PHASES[2]],
        [(11, "enter-initrd2"), *PHASES[1:]],
        [(12, "enter-initrd"), *PHASES[1:]],
        [PHASES[0], *PHASES],
    ):
        with refused("bootlog-replay-mismatch"):
            boot(log(wrong))
    boot(log())


def test_what_was_measured_after_the_quote_is_not_judged(boot):
    later = boot(log() + record(11, "ready"))
    assert [found.text for found in later.userspace] == [text for _, text in PHASES]


def test_records_of_pcrs_that_were_not_quoted_prove_nothing(boot):
    facts = extract_facts(boot(record(13, "sysext") + log()))
    assert 13 not in {fact.pcr for fact in facts.userspace}


def test_a_text_that_its_digest_is_not_of_is_no_fact(boot, refused):
    secret = hmac.new(b"key", b"cryptsetup:root", hashlib.sha256).hexdigest()
    measured = hashlib.sha256(b"leave-initrd").hexdigest()
    changed = record(11, "enter-initrd") + record(11, "leave-quietly", digest=measured) + record(*PHASES[2])
    facts = extract_facts(boot(changed))
    assert [fact.text for fact in facts.userspace] == ["enter-initrd", None, PHASES[2][1]]
    assert facts.userspace[1].digest == measured
    with refused("bootlog-replay-mismatch"):
        boot(record(11, "enter-initrd", digest=secret) + log(PHASES[1:]))


def test_a_record_without_a_digest_of_the_quoted_bank(boot, refused):
    digests = [{"hashAlg": "sha384", "digest": hashlib.sha384(b"enter-initrd").hexdigest()}]
    with refused("userspace-log-invalid"):
        boot(record(digests=digests) + log(PHASES[1:]))
    boot(log())


def test_firmware_that_hides_the_end_of_boot_services_is_told_before_userspace(kit, tpm):
    values = kit.replay_events(kit.good_events())
    values[5] = hashlib.sha256(bytes(32) + hashlib.sha256(bytes(4)).digest()).digest()
    for text in (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success", b"os-separator"):
        values[5] = hashlib.sha256(values[5] + hashlib.sha256(text).digest()).digest()
    raw = parse_boot_log(kit.write_log([event for event in kit.good_events() if event.data[:4] != b"Exit"]))
    replayed = verify_boot_log(raw, tpm.quote_of(values), parse_userspace_log(record(5, "os-separator")))
    assert [finding.id for finding in replayed.findings] == ["exit-boot-services-missing"]


def test_several_banks_have_to_arrive_together():
    records = parse_userspace_log(
        record(
            digests=[
                {"hashAlg": "sha256", "digest": "01" * 32},
                {"hashAlg": "sha384", "digest": "02" * 48},
            ]
        )
    )
    start = {SHA256: {11: bytes(32)}, SHA384: {11: bytes(48)}}
    after = {
        SHA256: {11: hashlib.sha256(bytes(32) + b"\1" * 32).digest()},
        SHA384: {11: hashlib.sha384(bytes(48) + b"\2" * 48).digest()},
    }
    assert follow(records, start, start) == 0
    assert follow(records, start, after) == 1
    assert follow(records, start, after | {SHA384: start[SHA384]}) is None
