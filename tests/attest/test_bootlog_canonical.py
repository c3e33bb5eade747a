"""Canonical event logs: one fault each, and the log without it is good."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.bootlog.cel import MAX_CEL_SIZE, is_canonical_log, parse_canonical_log, replay_canonical_log
from umec_attest.errors import CanonicalLogInvalid
from umec_attest.tpm.algorithms import HashAlgorithm

SHA256, SHA384 = HashAlgorithm.SHA256, HashAlgorithm.SHA384


def field(kind, value):
    return bytes([kind]) + len(value).to_bytes(4, "big") + value


CONTENT = field(80, b"\0\0\0\0\4hash")
DIGEST = field(0x0B, hashlib.sha256(CONTENT).digest())


def record(number=0, register=None, digests=DIGEST, content=CONTENT, first=0, third=3):
    index = field(1, b"\x0d") if register is None else register
    return field(first, number.to_bytes(8, "big")) + index + field(third, digests) + content


def test_a_canonical_log():
    log = record() + record(1)
    assert is_canonical_log(log)
    first, second = parse_canonical_log(log)
    assert (first.kind, first.index, first.content_type) == ("pcr", 13, 80)
    assert first.covered(SHA256)
    assert not first.covered(SHA384)
    once = hashlib.sha256(bytes(32) + second.digests[SHA256]).digest()
    twice = hashlib.sha256(once + second.digests[SHA256]).digest()
    assert replay_canonical_log((first, second), SHA256) == {("pcr", 13): twice}


def test_registers_of_each_kind():
    for register, kind, index in (
        (field(1, b"\x17"), "pcr", 23),
        (field(2, b"\x01\xd1\x02\x00"), "nv-index", 0x1D10200),
        (field(108, b"\x04"), "register", 4),
    ):
        (found,) = parse_canonical_log(record(register=register))
        assert (found.kind, found.index) == (kind, index)


@pytest.mark.parametrize(
    "wrong",
    [
        record(1),
        record() + record(),
        record() + record(2),
        record(first=1),
        record(third=4),
        record(register=field(1, b"\x18")),
        record(register=field(1, b"\0\x0d")),
        record(register=field(2, b"\x0d")),
        record(register=field(9, b"\x0d")),
        record(digests=b""),
        record(digests=DIGEST + DIGEST),
        record(digests=field(0x99, bytes(32))),
        record(digests=field(0x0B, bytes(31))),
        record(digests=DIGEST[:-1]),
        record(content=field(3, b"")),
        record(content=b""),
        record()[:-1],
        record() + b"\0",
        record() + field(0, bytes(8)),
        b"",
    ],
)
def test_logs_of_another_form(refused, wrong):
    with refused("canonical-log-invalid"):
        parse_canonical_log(wrong)
    parse_canonical_log(record() + record(1))


def test_a_log_beyond_the_limit(refused):
    room = MAX_CEL_SIZE - len(record(content=field(80, b"")))
    with refused("canonical-log-invalid"):
        parse_canonical_log(record(content=field(80, bytes(room + 1))))
    (found,) = parse_canonical_log(record(content=field(80, bytes(room))))
    assert not found.covered(SHA256)


def test_a_bank_without_digests(refused):
    records = parse_canonical_log(record())
    with refused("canonical-log-invalid"):
        replay_canonical_log(records, SHA384)
    replay_canonical_log(records, SHA256)


def test_a_boot_log_is_no_canonical_one(kit):
    assert not is_canonical_log(kit.write_log(kit.good_events()))


@given(data=st.binary(max_size=200), behind=st.booleans())
def test_any_bytes_give_records_or_the_one_error(data, behind):
    try:
        records = parse_canonical_log(record() + data if behind else data)
    except CanonicalLogInvalid:
        return
    assert records
    assert all(found.digests for found in records)
