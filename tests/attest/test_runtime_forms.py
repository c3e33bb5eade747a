"""Lists as they come, judged in one pass, against the long way: each entry parsed and judged by itself."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.errors import ImaRefused
from umec_attest.ima import ImaCheckpoint, SeenByFleet, judge_runtime, parse_runtime_policy
from umec_attest.ima.entries import AGGREGATE, parse_entry, raw_entries
from umec_attest.ima.entry_findings import entry_finding
from umec_attest.ima.text import binary_list
from umec_attest.quote import VerifiedQuote
from umec_attest.testing.runtime import measured, raw_entry, template_data
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.attest import ClockInfo

SHA256 = HashAlgorithm.SHA256
START = bytes(32)
DIGEST = hashlib.sha256(b"content").digest()
LARGE = hashlib.sha384(b"content").digest()
PATHS = ("/bin/bash", "/usr/bin/true", "/usr/lib/x/y.so.1")  # the first one's size looks like the number of a PCR
POLICY = parse_runtime_policy(
    {"files": {path: [DIGEST.hex(), LARGE.hex(), "0a" * 32] for path in PATHS}, "exclude": ["/var/lib/app/**"]}
)
SEEN = SeenByFleet()


def violated(path):
    return raw_entry(template_data(b"sha256:\0" + bytes(32), path + b"\0"), template_hash=bytes(20))


def legacy(digest, name):
    hashed = digest + name.ljust(256, b"\0")
    return raw_entry(hashed, "ima")[:31] + digest + len(name).to_bytes(4, "little") + name


GOOD = [
    *(measured(path, DIGEST) for path in PATHS),
    measured(PATHS[0], bytes([10]) * 32),
    measured(PATHS[1], LARGE, label="sha384"),
    measured(PATHS[1], DIGEST, b"", template="ima-sig"),
    measured(PATHS[0], DIGEST, b"\x0a\0\0\0", template="ima-sig"),
    measured(PATHS[2], DIGEST, label="ima:sha256", template="ima-ngv2"),
    measured("/var/lib/app/one", bytes(32)),
]
STRANGE = [
    measured("/opt/evil", DIGEST),
    measured(PATHS[1], bytes(32)),
    measured(PATHS[1], b"\0\x0a\0\0\0" + bytes(27)),
    measured(PATHS[1], bytes(20), label="sha1"),
    measured(b"/usr/bin/tr\x0a\0\0\0ue", DIGEST),
    measured(b"usr/bin/true", DIGEST),
    measured(b"boot_aggregate", DIGEST),
    measured("/opt/evil", DIGEST, b"\x03\x02\x04sig", template="ima-sig"),
    measured("kexec-cmdline", hashlib.sha256(b"ro").digest(), b"ro", template="ima-buf"),
    violated(PATHS[1].encode()),
    violated(b"/var/lib/app/log"),
    legacy(bytes(20), PATHS[1].encode()),
]
WRONG = [
    raw_entry(template_data(b"sha256:\0" + DIGEST, PATHS[1].encode() + b"\0"), pcr=11),
    raw_entry(template_data(b"sha256:\0" + DIGEST, PATHS[1].encode() + b"\0"), "ima-xy"),
    raw_entry(template_data(b"sha256:\0" + DIGEST, PATHS[1].encode() + b"\0"), template_hash=bytes([1]) * 20),
    raw_entry(template_data(b"sha256:\0" + DIGEST, PATHS[1].encode() + b"\0") + b"\0"),
    raw_entry(template_data(b"sha256:\0" + DIGEST[:-1], PATHS[1].encode() + b"\0")),
    measured(PATHS[1], DIGEST)[:-1],
]


def line_of(raw):
    """An entry as the kernel prints it (those of the templates that are here)."""
    size = raw[24]
    template, recorded = raw[28 : 28 + size], raw[4:24].hex().encode()
    if template == b"ima":
        return b"10 %b ima %b %b\n" % (recorded, raw[31:51].hex().encode(), raw[55:])
    fields, at = [], 32 + size
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        fields.append(raw[at + 4 : end])
        at = end
    label, _, digest = fields[0].partition(b":\0")
    words = [label + b":" + digest.hex().encode(), fields[1][:-1], *(field.hex().encode() for field in fields[2:])]
    return b" ".join([b"10", recorded, template, *words]) + b"\n"


GOOD_LINE = line_of(GOOD[1])
HASH, CONTENT = GOOD_LINE.split(b" ")[1], DIGEST.hex().encode()
# Sixteen bytes of a digest where there should be twenty: what follows is read as the rest of it, or as sizes.
SHORT_DIGEST = hashlib.sha1(bytes(16) + b"\x0d\0\0\0" + b"/bin/true".ljust(256, b"\0"), usedforsecurity=False)
LINES = [line_of(raw) for raw in [*GOOD, *STRANGE]]
OTHER_LINES = [
    GOOD_LINE.replace(CONTENT, CONTENT.upper()),
    GOOD_LINE.replace(HASH, HASH.upper()),
    GOOD_LINE.replace(HASH, b"01" * 20),
    GOOD_LINE.replace(CONTENT, CONTENT[:-1] + b"g"),
    GOOD_LINE.replace(CONTENT, CONTENT[:-1]),
    GOOD_LINE.replace(CONTENT + b" ", CONTENT + b"_"),
    GOOD_LINE.replace(CONTENT + b" ", CONTENT + b"  "),
    GOOD_LINE.replace(b"10 ", b"11 ", 1),
    GOOD_LINE.replace(b"10 ", b"010 ", 1),
    GOOD_LINE.replace(b"sha256:", b"sha384:"),
    GOOD_LINE.replace(b" ima-ng ", b" ima-xy "),
    GOOD_LINE.replace(b" ima-ng ", b" ima-sig "),
    GOOD_LINE[:-1],
    GOOD_LINE[:-1] + b"x",
    GOOD_LINE[:-1] + b" \n",
    GOOD_LINE[:-1] + b"\r\n",
    GOOD_LINE[:60],
    b"\n",
    b"10 " + HASH + b" ima " + CONTENT + b" /x\n",
    b"10 " + HASH + b" ima 00 /x\n",
    b"10 " + HASH + b" ima\n",
    *(
        b"10 %b ima %b %b/bin/true\n" % (SHORT_DIGEST.hexdigest().encode(), b"00" * 16, start)
        for start in (b"/usr", b"\2\0\0\0", b"\x09\0\0\0")
    ),
]


def quote_of(pcr):
    return VerifiedQuote({SHA256: dict.fromkeys(range(10), bytes(32)) | {10: pcr}}, ClockInfo(1, 5, 2, safe=True), 7)


def long_way(data, quoted):
    """Number of entries, PCR and findings; or the error."""
    found, value, count = [], START, 0
    try:
        entries = iter(raw_entries(binary_list(data)))
        while value != quoted and (raw := next(entries, None)) is not None:
            entry = parse_entry(raw)
            finding = None
            if entry.name == AGGREGATE:
                found.append("ima-kexec")
            elif (finding := entry_finding(entry, POLICY)) is not None:
                found.append(finding)
            digest = b"\xff" * 32 if entry.violation else SHA256.digest(entry.data)
            value, count = SHA256.digest(value + digest), count + 1
    except ImaRefused as error:
        return error.code, error.detail
    return count, value, found


def one_pass(data, quoted, seen=None):
    """The same by `judge_runtime`, from a checkpoint on, so that no aggregate is due, nor anything that ran."""
    start = ImaCheckpoint(5, 2, START, POLICY.sha256, restart_count=2)
    try:
        judged = judge_runtime(data, quote_of(quoted), start, POLICY, more=True, seen=seen)
    except ImaRefused as error:
        return error.code, error.detail
    findings = ["ima-kexec" if finding.id == "ima-kexec" else finding for finding in judged.findings]
    return judged.entries, judged.checkpoint.pcr, findings


def pcr_of(entries):
    value = START
    for raw in entries:
        entry = parse_entry(raw)
        value = SHA256.digest(value + (b"\xff" * 32 if entry.violation else SHA256.digest(entry.data)))
    return value


@st.composite
def lists(draw):
    """A list in either form, mostly well-formed, and a PCR that it may come by."""
    text = draw(st.booleans())
    entries = draw(st.lists(st.sampled_from(GOOD) | st.sampled_from([*GOOD, *STRANGE]), max_size=12))
    quoted = draw(st.sampled_from([bytes([1]) * 32, pcr_of(entries[: draw(st.integers(0, 12))])]))
    pieces = [line_of(raw) if text else raw for raw in entries]
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        pieces.insert(draw(st.integers(0, 12)), draw(st.sampled_from(OTHER_LINES if text else WRONG)))
    data = bytearray(b"".join(pieces))
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.sampled_from([b"", b"\0", b"\n", b" ", b"\x0a\0\0\0", b"A"]))
    cut = draw(st.sampled_from([0, 0, 0, 1, 7, 60]))
    return bytes(data[: len(data) - cut] if cut else data), quoted


@given(made=lists())
def test_the_one_pass_and_the_long_way_agree(made):
    """Entries, PCR, findings, errors: for what nobody has seen, for what was seen just now, and by any list before."""
    data, quoted = made
    expected = long_way(data, quoted)
    fresh = SeenByFleet()
    assert [one_pass(data, quoted), one_pass(data, quoted, fresh), one_pass(data, quoted, fresh)] == [expected] * 3
    assert one_pass(data, quoted, SEEN) == expected


@pytest.mark.parametrize("line", OTHER_LINES)
@pytest.mark.parametrize("before", [True, False])
def test_lines_that_nearly_are_those_of_a_listed_file(line, before):
    """Wherever they stand, and whatever was seen: the fast way refuses what the long one refuses, for its reason."""
    for data in (line, GOOD_LINE + line, line + GOOD_LINE, GOOD_LINE + line + GOOD_LINE):
        seen = SeenByFleet()
        if before:
            one_pass(b"".join(LINES), bytes(32), seen)
        for quoted in (pcr_of(GOOD[1:2]), bytes([1]) * 32):
            assert one_pass(data, quoted, seen) == long_way(data, quoted)
    assert one_pass(GOOD_LINE, bytes([1]) * 32)[0] == 1
