"""Lists of runtime measurements: forged, cut and malformed ones, in both forms."""

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.errors import ImaInvalid
from umec_attest.ima import MAX_FIELD_SIZE, lists, parse_ima, replay_ima, verify_ima


def entry(name, digest, template="ima-ng", more=(), label=b"sha256"):
    return of_fields(label + b":\0" + digest, name.encode() + b"\0", *more, template=template)


def of_fields(*fields, template="ima-ng", tail=b""):
    data = b"".join(struct.pack("<I", len(field)) + field for field in fields) + tail
    return template, hashlib.sha1(data, usedforsecurity=False).digest(), data


def line(*words, fields, template=b"ima-ng"):
    """A line of the text form under the hash that its fields have."""
    _, template_hash, _ = of_fields(*fields)
    return b" ".join([b"10", template_hash.hex().encode(), template, *words]) + b"\n"


def binary(entries, pcr=10):
    text = b""
    for template, template_hash, data in entries:
        text += struct.pack("<I", pcr) + template_hash + struct.pack("<I", len(template)) + template.encode()
        text += struct.pack("<I", len(data)) + data
    return text


@pytest.fixture
def values(kit):
    return dict.fromkeys(range(10), bytes(32)) | kit.replay_events(kit.good_events())


@pytest.fixture
def good(values):
    aggregate = hashlib.sha256(b"".join(values[pcr] for pcr in range(10))).digest()
    files = [entry(f"/usr/bin/tool-{n}", bytes([n]) * 32) for n in range(5)]
    return [entry("boot_aggregate", aggregate), *files]


@pytest.fixture
def verify(kit, tpm, values, good):
    quoted = replay_ima(parse_ima(binary(good)), kit.SHA256)
    quote = tpm.quote_of(values | {10: quoted})
    return lambda data: verify_ima(parse_ima(data), quote)


def test_a_good_list_in_both_forms(verify, good):
    entries = verify(binary(good))
    assert len(entries) == 6
    lines = b"".join(
        b"10 %s ima-ng sha256:%s %s\n"
        % (one.template_hash.hex().encode(), one.fields[0][8:].hex().encode(), one.fields[1][:-1])
        for one in entries
    )
    assert verify(lines) == entries


def test_changed_removed_swapped_and_added_entries(verify, good, refused):
    for wrong in (
        good[:-1],
        good[:2] + good[3:],
        [good[0], good[2], good[1], *good[3:]],
        [*good, entry("/opt/evil", bytes(32))],
        [*good[:-1], entry("/usr/bin/tool-4", bytes(32))],
    ):
        with refused("ima-replay-mismatch"):
            verify(binary(wrong))


def test_a_template_hash_that_is_not_of_its_data(verify, good, refused):
    template, _, data = good[3]
    with refused("ima-invalid"):
        verify(binary([*good[:3], (template, b"\x01" * 20, data), *good[4:]]))


def test_a_forged_violation(verify, good, refused):
    template, _, data = good[3]
    with refused("ima-replay-mismatch"):
        verify(binary([*good[:3], (template, bytes(20), data), *good[4:]]))


def test_aggregate_missing_twice_or_of_another_boot(kit, tpm, values, good, refused):
    other = entry("boot_aggregate", bytes(32))
    aggregate = parse_ima(binary(good))[0].fields[0][8:]
    renamed, unquoted = entry("/sbin/init", aggregate), entry("boot_aggregate", aggregate, label=b"sha384")
    for entries in (good[1:], [*good, good[0]], [other, *good[1:]], [renamed, *good[1:]], [unquoted, *good[1:]]):
        parsed = parse_ima(binary(entries))
        quote = tpm.quote_of(values | {10: replay_ima(parsed, kit.SHA256)})
        with refused("ima-aggregate-mismatch"):
            verify_ima(parsed, quote)


def test_a_quote_without_pcr_10(tpm, values, good, refused):
    with refused("ima-replay-mismatch"):
        verify_ima(parse_ima(binary(good)), tpm.quote_of(values))


def test_malformed_lists(good, refused):
    data = binary(good)
    template, template_hash, content = good[1]
    for wrong in (
        b"",
        data[:-1],
        data + b"\0",
        binary(good[:1]) + binary(good[1:], pcr=11),
        binary([("ima", template_hash, content)]),
        binary([("unknown", template_hash, content)]),
        binary([(template, template_hash, content + b"\xff\xff\xff\xff")]),
        binary([(template, template_hash, b"")]),
        b"11 " + template_hash.hex().encode() + b" ima-ng sha256:00 /x\n",
        b"10 00 ima-ng sha256:00 /x\n",
        b"010 " + bytes(20).hex().encode() + b" ima-ng sha256:00 /x\n",
        b"10 " + bytes(20).hex().encode() + b" ima-ng sha256:0 0 /x\n",
        b"10 " + bytes(20).hex().encode() + b" ima-ng sha256:0 /x\n",
        data[: len(binary(good[:1])) + 30],
        b"10 " + bytes(20).hex().encode() + b" ima-ng sha256:00 /x",
        b"\n",
    ):
        with refused("ima-invalid"):
            parse_ima(wrong)
    parse_ima(data)


DIGEST, PATH = b"sha256:\0" + bytes(32), b"/x\0"


@pytest.mark.parametrize(
    "wrong",
    [
        binary([of_fields(DIGEST)]),
        binary([of_fields(DIGEST, b"/x")]),
        binary([of_fields(DIGEST, PATH, bytes(MAX_FIELD_SIZE + 1))]),
        binary([of_fields(DIGEST, PATH, *[bytes(MAX_FIELD_SIZE)] * 16)]),
        binary([of_fields(DIGEST, PATH, tail=b"\x05\0\0\0half")]),
        line(b"sha256:" + b"00" * 32, b"/x", fields=(DIGEST, PATH), template=b"ima-buf"),
        line(b"sha256", b"/x", fields=(b"sha256:\0", PATH)),
        line(b"sha256:00", b"", fields=(b"sha256:\0\0", b"\0")),
    ],
)
def test_entries_of_another_shape_under_their_own_hash(wrong, refused):
    with refused("ima-invalid"):
        parse_ima(wrong)
    for good in (binary([of_fields(DIGEST, PATH)]), line(b"sha256:" + b"00" * 32, b"/x", fields=(DIGEST, PATH))):
        assert len(parse_ima(good)) == 1


def test_hex_in_upper_case(refused):
    """One list, one spelling: the kernel writes lower case."""
    digest = b"\xab" * 32
    fields, more = (b"sha256:\0" + digest, PATH), (b"sha256:\0" + digest, PATH, b"\xcd")
    value = digest.hex().encode()
    good = line(b"sha256:" + value, b"/x", fields=fields)
    signed = line(b"sha256:" + value, b"/x", b"cd", fields=more, template=b"ima-sig")
    template_hash = good.split(b" ")[1]
    for wrong in (
        line(b"sha256:" + value.upper(), b"/x", fields=fields),
        good.replace(template_hash, template_hash.upper()),
        line(b"sha256:" + value, b"/x", b"CD", fields=more, template=b"ima-sig"),
    ):
        with refused("ima-invalid"):
            parse_ima(wrong)
    assert len(parse_ima(good + signed)) == 2


def test_data_that_is_cut_where_its_hash_is_not(refused):
    template, template_hash, data = of_fields(DIGEST, PATH)
    whole = binary([(template, template_hash, data)])
    longer = whole[: -len(data) - 4] + struct.pack("<I", len(data) + 1) + data
    with refused("ima-invalid"):
        parse_ima(longer)
    assert len(parse_ima(whole)) == 1


def test_a_list_beyond_the_limit(good, refused, monkeypatch):
    data = binary(good)
    monkeypatch.setattr(lists, "MAX_LIST_SIZE", len(data) - 1)
    with refused("ima-invalid"):
        parse_ima(data)
    monkeypatch.setattr(lists, "MAX_LIST_SIZE", len(data))
    assert parse_ima(data)


@given(data=st.binary(max_size=300), prefix=st.sampled_from([b"", b"\x0a\0\0\0", b"10 "]))
def test_any_bytes_give_a_list_or_the_one_error(data, prefix):
    try:
        assert parse_ima(prefix + data)
    except ImaInvalid:
        return
