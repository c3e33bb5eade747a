"""Lists of runtime measurements: forged, cut and malformed ones, in both forms."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.errors import ImaInvalid
from umec_attest.ima import parse_ima, replay_ima, verify_ima
from umec_attest.ima.entries import MAX_FIELD_SIZE, MAX_LIST_SIZE
from umec_attest.quote import VerifiedQuote
from umec_attest.testing.runtime import RuntimeList, measured, raw_entry, template_data
from umec_attest.tpm.attest import ClockInfo

FILES = [(f"/usr/bin/tool-{n}", b"content %d" % n) for n in range(5)]


def line(*words, fields, template=b"ima-ng"):
    """A line of the text form under the hash that its fields have."""
    template_hash = raw_entry(template_data(*fields))[4:24]
    return b" ".join([b"10", template_hash.hex().encode(), template, *words]) + b"\n"


@pytest.fixture
def values(kit):
    return dict.fromkeys(range(10), bytes(32)) | kit.replay_events(kit.good_events())


@pytest.fixture
def good(values):
    return RuntimeList.of(values, FILES)


@pytest.fixture
def verify(tpm, values, good):
    quote = tpm.quote_of(values | {10: good.pcr})
    return lambda entries: verify_ima(parse_ima(b"".join(entries)), quote)


def test_a_good_list_in_both_forms(verify, good):
    proven = verify(good.entries)
    assert len(proven) == 6
    lines = b"".join(
        b"10 %s ima-ng sha256:%s %s\n"
        % (one.template_hash.hex().encode(), one.fields[0][8:].hex().encode(), one.fields[1][:-1])
        for one in proven
    )
    assert verify([lines]) == proven


def test_the_replay_of_every_bank(kit, good):
    entries = parse_ima(good.data)
    assert replay_ima(entries, kit.SHA256) == good.pcr
    for algorithm in (type(kit.SHA256).SHA1, type(kit.SHA256).SHA384, type(kit.SHA256).SHA512):
        value = bytes(algorithm.digest_size)
        for entry in entries:
            value = algorithm.digest(value + algorithm.digest(entry.data))
        assert replay_ima(entries, algorithm) == value


def test_changed_removed_swapped_and_missing_entries(verify, good, refused):
    one = good.entries
    for wrong in (
        one[:-1],
        one[:2] + one[3:],
        [one[0], one[2], one[1], *one[3:]],
        [*one[:-1], measured("/usr/bin/tool-4", bytes(32))],
        [one[0], measured("/opt/evil", bytes(32)), *one[1:]],
    ):
        with refused("ima-replay-mismatch"):
            verify(wrong)


def test_what_is_behind_the_quote_is_not_proven(verify, good):
    assert len(verify([*good.entries, measured("/opt/later", bytes(32))])) == 6


def test_a_template_hash_that_is_not_of_its_data(verify, good, refused):
    wrong = good.entries[3]
    with refused("ima-invalid"):
        verify([*good.entries[:3], wrong[:4] + b"\x01" * 20 + wrong[24:], *good.entries[4:]])


def test_a_forged_violation(verify, good, refused):
    """Zeros for a template hash make the kernel's extension all ones; what the kernel wrote has no digest either."""
    wrong = good.entries[3]
    with refused("ima-invalid"):
        verify([*good.entries[:3], wrong[:4] + bytes(20) + wrong[24:], *good.entries[4:]])
    without = raw_entry(template_data(b"sha256:\0" + bytes(32), b"/usr/bin/tool-2\0"), template_hash=bytes(20))
    with refused("ima-replay-mismatch"):
        verify([*good.entries[:3], without, *good.entries[4:]])


def test_a_violation_is_replayed_as_the_kernel_does(tpm, values, good):
    good.add(raw_entry(template_data(b"sha256:\0" + bytes(20), b"/var/log/x\0"), template_hash=bytes(20)))
    quote = tpm.quote_of(values | {10: good.pcr})
    assert verify_ima(parse_ima(good.data), quote)[-1].violation


def test_aggregate_missing_twice_or_of_another_boot(tpm, values, good, refused):
    aggregate = good.entries[0]
    digest = aggregate[-51:-19]
    for entries in (
        good.entries[1:],
        [*good.entries, aggregate],
        [measured("boot_aggregate", bytes(32)), *good.entries[1:]],
        [measured("/sbin/init", digest), *good.entries[1:]],
        [measured("boot_aggregate", digest, label="sha384"), *good.entries[1:]],
    ):
        wrong = RuntimeList()
        for entry in entries:
            wrong.add(entry)
        with refused("ima-aggregate-mismatch"):
            verify_ima(parse_ima(wrong.data), tpm.quote_of(values | {10: wrong.pcr}))
    assert len(verify_ima(parse_ima(good.data), tpm.quote_of(values | {10: good.pcr}))) == 6


def test_banks_that_stand_at_different_entries(kit, values, good, refused):
    sha384 = type(kit.SHA256).SHA384
    entries = parse_ima(good.data)

    def verify(count):
        pcrs = {kit.SHA256: values | {10: good.pcr}, sha384: {10: replay_ima(entries[:count], sha384)}}
        return verify_ima(entries, VerifiedQuote(pcrs, ClockInfo(1, 5, 2, safe=True), 7))

    assert len(verify(6)) == 6
    with refused("ima-replay-mismatch"):
        verify(5)


def test_an_aggregate_over_eight_registers(kit, tpm, values):
    """Linux before 5.8 hashed PCR 0 to 7."""
    made = RuntimeList()
    made.add(measured("boot_aggregate", kit.SHA256.digest(b"".join(values[pcr] for pcr in range(8)))))
    assert verify_ima(parse_ima(made.data), tpm.quote_of(values | {10: made.pcr}))


def test_a_quote_without_pcr_10(tpm, values, good, refused):
    with refused("ima-replay-mismatch"):
        verify_ima(parse_ima(good.data), tpm.quote_of(values))


def test_an_empty_list(refused):
    with refused("ima-empty"):
        parse_ima(b"")


def test_malformed_lists(good, refused):
    data = good.data
    content = template_data(b"sha256:\0" + bytes(32), b"/x\0")
    for wrong in (
        data[:-1],
        data + b"\0",
        data + b"\x0a\0\0\0",
        good.entries[0] + raw_entry(content, pcr=11),
        raw_entry(content + b"\xff\xff\xff\xff"),
        raw_entry(b""),
        b"11 " + bytes(20).hex().encode() + b" ima-ng sha256:00 /x\n",
        b"10 00 ima-ng sha256:00 /x\n",
        b"010 " + bytes(20).hex().encode() + b" ima-ng sha256:00 /x\n",
        b"10 " + bytes(20).hex().encode() + b" ima-ng sha256:0 0 /x\n",
        b"10 " + bytes(20).hex().encode() + b" ima-ng sha256:0 /x\n",
        b"10 " + bytes(20).hex().encode() + b" ima-ng\n",
        data[: len(good.entries[0]) + 30],
        b"10 " + bytes(20).hex().encode() + b" ima-ng sha256:00 /x",
        b"\n",
    ):
        with refused("ima-invalid"):
            parse_ima(wrong)
    assert len(parse_ima(data)) == 6


def test_templates_that_nobody_knows(refused):
    content = template_data(b"sha256:\0" + bytes(32), b"/x\0")
    for wrong in (
        raw_entry(content, "ima-xy"),
        raw_entry(content, "ima-ng-and-more"),
        raw_entry(content, ""),
        line(b"sha256:" + b"00" * 32, b"/x", fields=(DIGEST, PATH), template=b"ima-cgpath"),
    ):
        with refused("ima-template-unknown"):
            parse_ima(wrong)
    assert len(parse_ima(raw_entry(content))) == 1


@pytest.mark.parametrize("renamed", ["ima", "ima-sig", "ima-sigv2", "ima-buf", "ima-modsig", "evm-sig"])
def test_a_template_under_the_name_of_another(renamed, refused):
    """The name of a template is not hashed: what tells is the shape of its data."""
    content = template_data(b"sha256:\0" + bytes(32), b"/x\0")
    with refused("ima-invalid"):
        parse_ima(raw_entry(content, renamed))
    assert len(parse_ima(raw_entry(content))) == 1


DIGEST, PATH = b"sha256:\0" + bytes(32), b"/x\0"


@pytest.mark.parametrize(
    "wrong",
    [
        raw_entry(template_data(DIGEST)),
        raw_entry(template_data(DIGEST, b"/x")),
        raw_entry(template_data(DIGEST, b"")),
        raw_entry(template_data(DIGEST, PATH, b"")),
        raw_entry(template_data(DIGEST, PATH, bytes(MAX_FIELD_SIZE + 1)), "ima-sig"),
        raw_entry(template_data(DIGEST, PATH) + b"\x05\0\0\0half", "ima-sig"),
        line(b"sha256:" + b"00" * 32, b"/x", fields=(DIGEST, PATH), template=b"ima-buf"),
        line(b"sha256:" + b"00" * 32, b"/x", b"y", fields=(DIGEST, b"/x y\0")),
        line(b"sha256", b"/x", fields=(b"sha256:\0", PATH)),
        line(b"sha256:" + b"00" * 32, b"/x", fields=(DIGEST, b"/y\0")),
    ],
)
def test_entries_of_another_shape_under_their_own_hash(wrong, refused):
    with refused("ima-invalid"):
        parse_ima(wrong)
    good = (
        raw_entry(template_data(DIGEST, PATH)),
        raw_entry(template_data(DIGEST, PATH, bytes(MAX_FIELD_SIZE)), "ima-sig"),
        line(b"sha256:" + b"00" * 32, b"/x", fields=(DIGEST, PATH)),
    )
    assert [len(parse_ima(one)) for one in good] == [1, 1, 1]


def legacy(digest, name, padded=None):
    """An entry of the template "ima", whose name is hashed in 256 bytes."""
    hashed = digest + name.ljust(256, b"\0") if padded is None else padded
    head = raw_entry(hashed, "ima")[:31]
    return head + digest + struct.pack("<I", len(name)) + name


def test_the_legacy_template(refused):
    digest, name = b"\x07" * 20, b"/sbin/init"
    (entry,) = parse_ima(legacy(digest, name))
    assert (entry.template, entry.name, entry.data) == ("ima", name, digest + name.ljust(256, b"\0"))
    assert parse_ima(legacy(digest, name) + raw_entry(template_data(DIGEST, PATH)))[1].name == b"/x"
    words = b"10 %s ima %s %s\n" % (entry.template_hash.hex().encode(), digest.hex().encode(), name)
    assert parse_ima(words) == (entry,)
    assert len(parse_ima(legacy(digest, b"/" + b"a" * 254))) == 1
    for wrong in (
        legacy(digest, b"/" + b"a" * 255),
        legacy(digest, b"/sbin/init\0x"),
        legacy(digest, name)[:-1],
        legacy(digest, name)[:40],
        legacy(digest, name, padded=digest + name),
        legacy(b"\x07" * 20, name).replace(entry.template_hash, bytes(20)),
    ):
        with refused("ima-invalid"):
            parse_ima(wrong)
    assert parse_ima(legacy(bytes(20), name).replace(legacy(bytes(20), name)[4:24], bytes(20)))[0].violation


NUMBERS = (1000).to_bytes(4, "little"), (100).to_bytes(4, "little"), (0o100755).to_bytes(2, "little")
FORMS = [
    ("ima-ngv2", b"verity:sha256:" + b"00" * 32 + b" /x", (b"verity:" + DIGEST, PATH)),
    ("ima-sig", b"sha256:" + b"00" * 32 + b" /x ", (DIGEST, PATH, b"")),
    ("ima-sig", b"sha256:" + b"00" * 32 + b" /x", (DIGEST, PATH, b"")),
    ("ima-sig", b"sha256:" + b"00" * 32 + b" /x 0302", (DIGEST, PATH, b"\x03\x02")),
    ("ima-sigv2", b"ima:sha256:" + b"00" * 32 + b" /x 0302", (b"ima:" + DIGEST, PATH, b"\x03\x02")),
    ("ima-buf", b"sha256:" + b"00" * 32 + b" kexec-cmdline 726f", (DIGEST, b"kexec-cmdline\0", b"ro")),
    ("ima-modsig", b"sha256:" + b"00" * 32 + b" /x   ", (DIGEST, PATH, b"", b"", b"")),
    (
        "ima-modsig",
        b"sha256:" + b"00" * 32 + b" /x  sha256:" + b"00" * 32 + b" 3003",
        (DIGEST, PATH, b"", DIGEST, b"\x30\x03"),
    ),
    (
        "evm-sig",
        b"sha256:" + b"00" * 32 + b" /x 0502 security.ima 02000000 0404 1000 100 33261",
        (DIGEST, PATH, b"\x05\x02", b"security.ima\0", b"\x02\0\0\0", b"\x04\x04", *NUMBERS),
    ),
    ("evm-sig", b"sha256:" + b"00" * 32 + b" /x       ", (DIGEST, PATH, *[b""] * 7)),
]


@pytest.mark.parametrize(("template", "words", "fields"), FORMS)
def test_every_template_in_both_forms(template, words, fields):
    binary = raw_entry(template_data(*fields), template)
    (entry,) = parse_ima(binary)
    assert (entry.template, entry.fields) == (template, fields)
    assert parse_ima(line(words, fields=fields, template=template.encode())) == (entry,)


@pytest.mark.parametrize("number", [b"70000", b"-1", b"x", b"+1", b"00000000001"])
def test_a_mode_of_more_than_two_bytes(number, refused):
    words = b"sha256:" + b"00" * 32 + b" /x 0502 security.ima 02000000 0404 1000 100 "
    fields = (DIGEST, PATH, b"\x05\x02", b"security.ima\0", b"\x02\0\0\0", b"\x04\x04")
    with refused("ima-invalid"):
        parse_ima(line(words + number, fields=(*fields, *NUMBERS), template=b"evm-sig"))
    assert parse_ima(line(words + b"33261", fields=(*fields, *NUMBERS), template=b"evm-sig"))


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


def test_a_name_with_a_line_break_is_no_line(refused):
    fields = (DIGEST, b"/x\n10\0")
    with refused("ima-invalid"):
        parse_ima(line(b"sha256:" + b"00" * 32, b"/x\n10", fields=fields))
    assert parse_ima(raw_entry(template_data(*fields)))[0].name == b"/x\n10"


def test_an_entry_within_a_template_hash(refused):
    """What follows it in the line would be the end of its name."""
    rest = template_data(b"t", template_data(b":\0\0", b"x\0"))
    data = template_data(b"sha256:\0" + bytes(32), rest)
    entry = raw_entry(data)
    assert [found.data for found in parse_ima(entry)] == [data]
    with refused("ima-invalid"):
        parse_ima(b"10 " + entry[4 : -len(rest)].hex().encode() + b" t 00 x\n")


def test_a_template_hash_of_another_length_in_the_text_form(refused):
    good = line(b"sha256:" + b"00" * 32, b"/x", fields=(DIGEST, PATH))
    template_hash = good.split(b" ")[1]
    with refused("ima-invalid"):
        parse_ima(good.replace(template_hash, template_hash + b"00" * 12))
    assert parse_ima(good)


def test_data_that_is_cut_where_its_hash_is_not(refused):
    data = template_data(DIGEST, PATH)
    whole = raw_entry(data)
    longer = whole[: -len(data) - 4] + struct.pack("<I", len(data) + 1) + data
    with refused("ima-invalid"):
        parse_ima(longer)
    assert len(parse_ima(whole)) == 1


def test_a_list_beyond_the_limit(good, refused, monkeypatch):
    monkeypatch.setattr("umec_attest.ima.text.MAX_LIST_SIZE", len(good.data) - 1)
    with refused("ima-invalid"):
        parse_ima(good.data)
    monkeypatch.setattr("umec_attest.ima.text.MAX_LIST_SIZE", len(good.data))
    assert parse_ima(good.data)
    assert MAX_LIST_SIZE == 64 * 1024 * 1024


@given(data=st.binary(max_size=300), prefix=st.sampled_from([b"", b"\x0a\0\0\0", b"10 ", raw_entry(DIGEST)[:38]]))
def test_any_bytes_give_a_list_or_the_one_error(data, prefix):
    try:
        assert parse_ima(prefix + data)
    except ImaInvalid:
        return
