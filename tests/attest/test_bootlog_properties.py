"""Any log: what is written is what is read, replay is what a TPM does, and facts never crash."""

import hashlib
import struct

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umec_attest.bootlog import claimed_facts, parse_boot_log, replay
from umec_attest.bootlog.event_types import EV_NO_ACTION
from umec_attest.tpm.algorithms import HashAlgorithm

SHA256, SHA384 = HashAlgorithm.SHA256, HashAlgorithm.SHA384
KINDS = [0x4, 0x5, 0x8, 0xD, 0x80000001, 0x80000002, 0x80000003, 0x80000004, 0x80000006, 0x80000010, 0x800000E0, 0x99]
WORDS = [
    b"",
    bytes(4),
    b"\xff" * 4,
    b"\1\0\0\0",
    b"Calling EFI Application from Boot Option",
    b".linux\0",
    ".cmdline".encode("utf-16-le"),
    b"grub_cmd: linux /k quiet\0",
    b"kernel_cmdline: /k quiet\0",
    b"grub_cmd set a=b\0",
    b"MokListTrusted\0",
    b"\xd8\x00",
]


@st.composite
def variables(draw):
    vendor = draw(st.sampled_from(["8be4df61-93ca-11d2-aa0d-00e098032b8c", "d719b2cb-3d3a-4596-a3bc-dad00e67656f"]))
    name = draw(st.sampled_from(["SecureBoot", "PK", "db", "dbx", "SbatLevel", "BootOrder"])).encode("utf-16-le")
    content = draw(st.binary(max_size=60))
    parts = vendor.split("-")
    guid = b"".join(bytes.fromhex(part)[::-1] for part in parts[:3]) + bytes.fromhex("".join(parts[3:]))
    return guid + struct.pack("<QQ", len(name) // 2, len(content)) + name + content


@st.composite
def events(draw):
    """PCR, type, data, and the part of the data that is hashed, or another digest."""
    data = draw(st.sampled_from(WORDS) | variables() | st.binary(max_size=40))
    start, end = draw(st.sampled_from([(0, 0), (10, 1), (9, 0), (0, 1), (16, 1)]))
    hashed = draw(st.sampled_from([data, data[start : len(data) - end], b"\1", b"other"]))
    return draw(st.integers(0, 16)), draw(st.sampled_from(KINDS)), data, hashed


def written(made, head):
    log = head
    for pcr, kind, data, hashed in made:
        log += struct.pack("<IIIH", pcr, kind, 2, SHA256) + hashlib.sha256(hashed).digest()
        log += struct.pack("<H", SHA384) + hashlib.sha384(hashed).digest() + struct.pack("<I", len(data)) + data
    return log


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=st.lists(events(), max_size=10), register=st.sampled_from([0, 1]))
def test_what_is_written_is_read_replayed_and_understood(kit, made, register):
    head = register.to_bytes(4, "little") + kit.spec_id(((SHA256, 32), (SHA384, 48)))[4:]
    raw = parse_boot_log(written(made, head))
    assert [(event.pcr, event.type, event.data) for event in raw.events] == [event[:3] for event in made]
    values = {}
    for pcr, _, _, hashed in made:
        values[pcr] = hashlib.sha256(values.get(pcr, bytes(32)) + hashlib.sha256(hashed).digest()).digest()
    assert replay(raw, SHA256) == values
    for bank in (SHA256, SHA384):
        facts = claimed_facts(raw, bank)
        assert facts.secure_boot is None or not any("secure-boot" in finding.id for finding in facts.findings)
        assert facts.to_json()["algorithm"] == bank.label


@settings(max_examples=30)
@given(made=st.lists(events(), max_size=5))
def test_an_old_log_is_read_as_it_was_written(made):
    log = b""
    for pcr, kind, data, hashed in made:
        log += struct.pack("<II", pcr, kind) + hashlib.sha1(hashed, usedforsecurity=False).digest()
        log += struct.pack("<I", len(data)) + data
    if not log:
        return
    raw = parse_boot_log(log)
    assert [(event.pcr, event.type, event.data) for event in raw.events] == [event[:3] for event in made]
    assert all(event.type != EV_NO_ACTION for event in raw.events)
    claimed_facts(raw, HashAlgorithm.SHA1)
