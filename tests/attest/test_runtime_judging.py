"""What ran on a node, judged by a policy: from the first entry, from a checkpoint, for a fleet."""

import datetime as dt
import hashlib
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import SubjectKeyIdentifier
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.errors import ImaRefused
from umec_attest.ima import ImaCheckpoint, SeenByFleet, judge_runtime, parse_runtime_policy
from umec_attest.ima.seen import MAX_ENTRY_SIZE, MAX_POLICIES, SeenEntries
from umec_attest.quote import VerifiedQuote
from umec_attest.testing.runtime import RuntimeList, measured, raw_entry, template_data
from umec_attest.tpm.attest import ClockInfo

FILES = [(f"/usr/bin/tool-{n}", b"content %d" % n) for n in range(5)]
LISTED = {path: [hashlib.sha256(content).hexdigest()] for path, content in FILES}
OTHER = bytes(range(32))


def policy_of(**members):
    return parse_runtime_policy({"files": LISTED} | members)


def violated(path):
    return raw_entry(template_data(b"sha256:\0" + bytes(32), path + b"\0"), template_hash=bytes(20))


@pytest.fixture
def values(kit):
    return dict.fromkeys(range(10), bytes(32)) | kit.replay_events(kit.good_events())


@pytest.fixture
def node(tpm, values):
    """A node that ran the listed files: `more` measures further entries, `judge` shows the list to a verifier."""

    class Node:
        def __init__(self):
            self.ran = RuntimeList.of(values, FILES)

        def more(self, *entries):
            for entry in entries:
                self.ran.add(entry)

        def quote(self, **changes):
            return tpm.quote_of(values | {10: self.ran.pcr}, **changes)

        def judge(self, policy=None, *, data=None, checkpoint=None, seen=None, more=False, **changes):
            sent = self.ran.data if data is None else data
            quote = self.quote(**changes)
            return judge_runtime(sent, quote, checkpoint, policy or policy_of(), more=more, seen=seen)

        def found(self, policy=None, **options):
            return [finding.id for finding in self.judge(policy, **options).findings]

    return Node()


@pytest.fixture(scope="module")
def property_node(kit):
    pcrs = dict.fromkeys(range(10), bytes(32))
    made = RuntimeList.of(pcrs, FILES)
    quote = VerifiedQuote({kit.SHA256: pcrs | {10: made.pcr}}, ClockInfo(1, 5, 2, safe=True), 7)
    return made.data, quote, policy_of()


@pytest.fixture(scope="module")
def certificate_of():
    def make(key):
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ima")])
        start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
        builder = builder.public_key(key.public_key()).not_valid_before(start).not_valid_after(start.replace(year=2030))
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)

    return make


# --- the policy


def test_a_node_that_runs_what_is_listed(node):
    judged = node.judge()
    assert (judged.findings, judged.entries) == ((), 6)
    assert judged.checkpoint == ImaCheckpoint(5, 6, node.ran.pcr, policy_of().sha256, restart_count=2)


def test_an_unknown_executable_is_named_with_its_digest(node):
    node.more(measured("/opt/evil", OTHER))
    (finding,) = node.judge().findings
    assert finding.id == "ima-file-unknown"
    assert "/opt/evil" in finding.detail
    assert finding.found == f"sha256:{OTHER.hex()}"


def test_a_changed_executable_is_told_with_both_digests(node):
    node.more(measured("/usr/bin/tool-3", OTHER))
    (finding,) = node.judge().findings
    assert finding.id == "ima-file-changed"
    assert "/usr/bin/tool-3" in finding.detail
    assert (finding.expected, finding.found) == (LISTED["/usr/bin/tool-3"][0], f"sha256:{OTHER.hex()}")


def test_the_digest_of_another_listed_file(node):
    """A program under the name of another one, both listed."""
    node.more(measured("/usr/bin/tool-1", hashlib.sha256(FILES[0][1]).digest()))
    assert node.found() == ["ima-file-changed"]


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_digests_of_the_larger_hashes(node, algorithm):
    digest = hashlib.new(algorithm, b"large").digest()
    policy = policy_of(files=LISTED | {"/usr/bin/large": [digest.hex()]})
    node.more(measured("/usr/bin/large", digest, label=algorithm))
    assert node.found(policy) == []
    assert node.found() == ["ima-file-unknown"]


@pytest.mark.parametrize("label", ["sha1", "md5"])
def test_weak_digests(node, label):
    size = hashlib.new(label).digest_size
    node.more(measured("/usr/bin/tool-0", bytes(size), label=label))
    assert node.found() == ["ima-digest-weak"]


def test_the_legacy_template_is_weak(node):
    name = b"/usr/bin/tool-0"
    digest = hashlib.sha1(FILES[0][1], usedforsecurity=False).digest()
    head = raw_entry(digest + name.ljust(256, b"\0"), "ima")[:31]
    entry = head + digest + len(name).to_bytes(4, "little") + name
    node.ran.entries.append(entry)
    node.ran.extends.append(hashlib.sha256(digest + name.ljust(256, b"\0")).digest())
    (finding,) = node.judge().findings
    assert (finding.id, finding.found) == ("ima-digest-weak", f"sha1:{digest.hex()}")


@pytest.mark.parametrize("label", ["sm3-256", "streebog256", "nonsense", "sha1 ", ""])
def test_digests_that_nobody_can_compare(node, label):
    node.more(measured("/usr/bin/tool-0", bytes(32), label=label))
    assert node.found() == ["ima-digest-unknown"]


def test_digests_that_are_none(node, refused):
    good = hashlib.sha256(FILES[0][1]).digest()
    for field in (b"sha256:\0" + good[:-1], b"sha256:" + good, b"sha256\0" + good, b"sha384:\0" + good, b""):
        ran = node.ran
        node.ran = RuntimeList(list(ran.entries), list(ran.extends))
        node.more(raw_entry(template_data(field, b"/usr/bin/tool-0\0")))
        with refused("ima-invalid"):
            node.judge()
        node.ran = ran
    node.more(measured("/usr/bin/tool-0", good))
    assert node.found() == []


def test_versioned_digests_and_those_of_fs_verity(node, refused):
    good = hashlib.sha256(FILES[0][1]).digest()
    node.more(measured("/usr/bin/tool-0", good, template="ima-ngv2", label="ima:sha256"))
    assert node.found() == []
    node.more(measured("/usr/bin/tool-0", good, template="ima-ngv2", label="verity:sha256"))
    assert node.found() == ["ima-file-changed"]
    node.more(measured("/usr/bin/tool-0", good, template="ima-ngv2"))
    with refused("ima-invalid"):
        node.judge()


@pytest.mark.parametrize(
    "name",
    [
        b"/usr/bin/tool-0\n",
        b"/usr/bin/tool-0\0",
        b"/usr/bin/x\0/usr/bin/tool-0",
        b"/usr/bin/../bin/tool-0",
        b"/var/lib/app/../../../opt/evil",
        b"/usr/bin/\xfftool-0",
        b"/usr//bin/tool-0",
        b"usr/bin/tool-0",
        b"memfd:x",
        b"",
    ],
)
def test_names_that_the_kernel_does_not_give(node, name):
    """Not even under an excluded folder, and not with the digest of a listed file."""
    policy = policy_of(exclude=["/var/lib/app/**"])
    node.more(measured(name, hashlib.sha256(FILES[0][1]).digest()))
    (finding,) = node.judge(policy).findings
    assert finding.id == "ima-path-invalid"
    assert finding.detail.isprintable()
    node.ran.entries.pop()
    node.ran.extends.pop()
    assert node.found(policy) == []


def test_excluded_paths_hide_unknown_and_changed_files_and_violations(node):
    node.more(
        measured("/var/lib/app/plugin", OTHER),
        measured("/usr/bin/tool-1", OTHER),
        measured("/var/lib/app/old", bytes(20), label="sha1"),
        violated(b"/var/lib/app/log"),
    )
    assert node.found(policy_of(exclude=["/var/lib/app/**", "/usr/bin/tool-1"])) == []
    assert set(node.found(policy_of(exclude=["/var/lib/ap/**", "/usr/bin/tool-"]))) == {
        "ima-file-unknown",
        "ima-file-changed",
        "ima-digest-weak",
        "ima-violation",
    }


def test_violations_are_findings_and_stay_for_the_boot(node):
    node.more(violated(b"/usr/bin/tool-1"))
    assert node.found() == ["ima-violation"]
    policy = policy_of(violations="warn")
    first = node.judge(policy)
    assert [finding.id for finding in first.findings] == ["ima-violation-tolerated"]
    assert first.checkpoint.findings == first.findings
    node.more(violated(b"/usr/bin/tool-2"), measured("/usr/bin/tool-2", hashlib.sha256(FILES[2][1]).digest()))
    second = node.judge(policy, data=b"".join(node.ran.entries[7:]), checkpoint=first.checkpoint)
    assert [finding.id for finding in second.findings] == ["ima-violation-tolerated"] * 2
    assert second.findings[0] == first.findings[0]
    steady = node.judge(policy, data=b"", checkpoint=second.checkpoint)
    assert (steady.findings, steady.entries) == (second.findings, 0)


def test_findings_are_bounded(node):
    node.more(*(measured(f"/opt/evil-{n}", OTHER) for n in range(40)), violated(b"/opt/x"))
    judged = node.judge()
    assert [finding.id for finding in judged.findings] == ["ima-file-unknown"] * 17 + ["ima-violation"]
    assert judged.findings[16].detail == "and more of them"
    node.more(measured("/opt/evil-again", OTHER))
    assert node.judge(data=node.ran.entries[-1], checkpoint=judged.checkpoint).findings == judged.findings


def test_a_list_without_what_the_policy_requires(node):
    """The kernel's own policy, say: it is read before anything sends evidence, so it is in the first part."""
    needed = policy_of(required=["/usr/bin/tool-3"])
    assert node.judge(needed).findings == ()
    read = node.ran
    node.ran = RuntimeList()
    for number, entry in enumerate(read.entries):
        if number != 4:
            node.more(entry)
    judged = node.judge(needed)
    assert [finding.id for finding in judged.findings] == ["ima-required-missing"]
    assert "/usr/bin/tool-3" in judged.findings[0].detail
    assert node.judge(policy_of()).findings == ()
    # that its name stands in another entry is not enough, and it stays for the whole boot
    node.more(measured("/usr/bin/tool-3x", OTHER, b"/usr/bin/tool-3\0", template="ima-sig"))
    assert [finding.id for finding in node.judge(needed).findings if finding.id.startswith("ima-req")]
    later = node.judge(needed, checkpoint=judged.checkpoint, data=node.ran.entries[-1])
    assert later.findings[0].id == "ima-required-missing"


# --- replay, checkpoints, quotes


def test_lists_that_were_changed(node, refused):
    one = node.ran.entries
    evil = measured("/opt/evil", OTHER)
    for wrong in (
        one[:-1],
        one[:2] + one[3:],
        [one[0], one[2], one[1], *one[3:]],
        [*one[:-1], measured("/usr/bin/tool-4", OTHER)],
        [*one[:-1], evil, one[-1]],
        [*one[:3], one[3], *one[3:]],
    ):
        with refused("ima-replay-mismatch"):
            node.judge(data=b"".join(wrong))
    assert node.found() == []


def test_an_unknown_executable_cannot_be_left_out(node, refused):
    clean = node.ran.data
    node.more(measured("/opt/evil", OTHER))
    with refused("ima-replay-mismatch"):
        node.judge(data=clean)


def test_what_ran_after_the_quote_waits_for_the_next_one(node):
    ahead = node.ran.data + measured("/opt/evil", OTHER)
    judged = node.judge(data=ahead)
    assert (judged.findings, judged.entries, judged.checkpoint.entries) == ((), 6, 6)
    node.more(measured("/opt/evil", OTHER))
    later = node.judge(data=ahead[len(b"".join(node.ran.entries[:6])) :], checkpoint=judged.checkpoint)
    assert [finding.id for finding in later.findings] == ["ima-file-unknown"]
    assert (later.entries, later.checkpoint.entries) == (1, 7)


def test_a_list_from_a_checkpoint_on(node, refused):
    first = node.judge()
    node.more(measured("/usr/bin/tool-1", hashlib.sha256(FILES[1][1]).digest()))
    tail = b"".join(node.ran.entries[6:])
    judged = node.judge(data=tail, checkpoint=first.checkpoint)
    assert (judged.findings, judged.entries) == ((), 1)
    assert judged.checkpoint == replace(first.checkpoint, entries=7, pcr=node.ran.pcr)
    shorter, longer = b"", b"".join(node.ran.entries[5:])
    for diverged in (shorter, longer, measured("/usr/bin/tool-2", OTHER), node.ran.data):
        with refused("ima-replay-mismatch"):
            node.judge(data=diverged, checkpoint=first.checkpoint)
    with refused("ima-replay-mismatch"):
        node.judge(data=tail, checkpoint=replace(first.checkpoint, pcr=bytes(32)))


def test_a_list_in_parts(node, refused):
    """What is kept of a part counts only when a later one reaches its quote; a finding of it does not get lost."""
    node.more(measured("/opt/evil", OTHER), LISTED_ENTRY)
    one, two, three = (b"".join(node.ran.entries[start:end]) for start, end in ((0, 3), (3, 7), (7, 8)))
    first = node.judge(data=one, more=True)
    assert (first.whole, first.entries, first.findings) == (False, 3, ())
    second = node.judge(data=two, checkpoint=first.checkpoint, more=True)
    assert (second.whole, second.checkpoint.entries) == (False, 7)
    last = node.judge(data=three, checkpoint=second.checkpoint)
    assert (last.whole, last.checkpoint.entries) == (True, 8)
    assert [finding.id for finding in last.findings] == ["ima-file-unknown"]
    for data, checkpoint in ((one, None), (two, first.checkpoint), (b"", second.checkpoint), (two, second.checkpoint)):
        with refused("ima-replay-mismatch"):
            node.judge(data=data, checkpoint=checkpoint)
    clean = b"".join((node.ran.entries[0], *node.ran.entries[2:6]))
    forged = node.judge(data=clean, more=True)
    with refused("ima-replay-mismatch"):
        node.judge(data=three, checkpoint=forged.checkpoint)
    for start in (two, b""):
        with refused("ima-aggregate-mismatch" if start else "ima-empty"):
            node.judge(data=start, more=True)
    assert node.judge(data=node.ran.data, more=True).whole


def test_a_part_of_a_list_proves_one_bank_only(kit, node, values, refused):
    two = VerifiedQuote(
        {kit.SHA256: values | {10: node.ran.pcr}, type(kit.SHA256).SHA384: {10: bytes(48)}},
        ClockInfo(1, 5, 2, safe=True),
        7,
    )
    with refused("ima-replay-mismatch"):
        judge_runtime(node.ran.entries[0], two, None, policy_of(), more=True)


def test_a_list_that_shrank(node, refused):
    """PCR 10 only grows within a boot: behind the checkpoint there is nothing."""
    checkpoint = replace(node.judge().checkpoint, entries=7)
    shrunk = node.ran.data
    node.more(measured("/usr/bin/tool-1", hashlib.sha256(FILES[1][1]).digest()))
    ahead = replace(checkpoint, pcr=node.ran.pcr)
    node.ran.entries.pop()
    node.ran.extends.pop()
    for data in (b"", shrunk):
        with refused("ima-replay-mismatch"):
            node.judge(data=data, checkpoint=ahead)


def test_a_steady_round_looks_at_nothing(node):
    first = node.judge()
    judged = node.judge(data=b"", checkpoint=first.checkpoint)
    assert (judged.findings, judged.entries, judged.checkpoint) == ((), 0, first.checkpoint)


def test_checkpoints_of_another_boot_policy_or_bank(kit, node, values, refused):
    checkpoint = node.judge().checkpoint
    for outdated in (
        replace(checkpoint, reset_count=4),
        replace(checkpoint, reset_count=6),
        replace(checkpoint, restart_count=checkpoint.restart_count + 1),
        replace(checkpoint, policy_sha256="00" * 32),
        replace(checkpoint, pcr=bytes(48)),
    ):
        with refused("ima-checkpoint-outdated"):
            node.judge(data=b"", checkpoint=outdated)
    two = VerifiedQuote(
        {kit.SHA256: values | {10: checkpoint.pcr}, type(kit.SHA256).SHA384: {10: bytes(48)}},
        ClockInfo(1, 5, 2, safe=True),
        7,
    )
    with refused("ima-checkpoint-outdated"):
        judge_runtime(b"", two, checkpoint, policy_of())
    with refused("ima-checkpoint-outdated"):
        node.judge(data=b"", checkpoint=checkpoint, clock_info=ClockInfo(1, 6, 2, safe=True))
    assert node.judge(data=b"", checkpoint=checkpoint).entries == 0


def test_a_kernel_that_measures_nothing(tpm, values, node, refused):
    quote = tpm.quote_of(values | {10: bytes(32)})
    for data in (b"", node.ran.data):
        with refused("ima-empty"):
            judge_runtime(data, quote, None, policy_of())


def test_a_kernel_without_a_policy_measures_nothing_that_ran(node, values):
    """What runs later does not mend it: what started before was not measured."""
    node.ran = RuntimeList.of(values, [])
    assert node.found() == ["ima-nothing-measured"]
    checkpoint = node.judge().checkpoint
    assert node.found(data=b"", checkpoint=checkpoint) == ["ima-nothing-measured"]
    started = measured("/usr/bin/tool-0", hashlib.sha256(b"content 0").digest())
    node.more(started)
    assert node.found(data=node.ran.entries[0], more=True) == []
    assert node.found(data=started, checkpoint=checkpoint) == ["ima-nothing-measured"]
    assert node.found() == []


def test_nothing_proves_a_list_without_its_register(tpm, values, node, refused):
    with refused("ima-replay-mismatch"):
        judge_runtime(node.ran.data, tpm.quote_of(values), None, policy_of())


def test_an_empty_list_for_a_register_that_grew(node, refused):
    with refused("ima-replay-mismatch"):
        node.judge(data=b"")


def test_a_bank_of_another_hash_alone(kit, node):
    """What a listed file extends is known beforehand for SHA-256, and for no other bank."""
    sha384 = type(kit.SHA256).SHA384
    aggregate = sha384.digest(b"".join(sha384.digest(bytes([pcr])) for pcr in range(10)))
    entries = [measured("boot_aggregate", aggregate, label="sha384"), *node.ran.entries[1:]]
    value = bytes(48)
    for entry in entries:
        value = sha384.digest(value + sha384.digest(entry[32 + entry[24] :]))
    pcrs = {sha384: {pcr: sha384.digest(bytes([pcr])) for pcr in range(10)} | {10: value}}
    quote = VerifiedQuote(pcrs, ClockInfo(1, 5, 2, safe=True), 7)
    judged = judge_runtime(b"".join(entries), quote, None, policy_of())
    assert (judged.findings, judged.entries) == ((), 6)


def test_every_quoted_bank_is_replayed(kit, node, values, refused):
    sha384 = type(kit.SHA256).SHA384
    value = bytes(48)
    for entry in node.ran.entries:
        (size,) = entry[24:25]
        value = sha384.digest(value + sha384.digest(entry[32 + size :]))

    def judge(other):
        pcrs = {kit.SHA256: values | {10: node.ran.pcr}, sha384: {10: other}}
        return judge_runtime(
            node.ran.data + measured("/x", OTHER),
            VerifiedQuote(pcrs, ClockInfo(1, 5, 2, safe=True), 7),
            None,
            policy_of(),
        )

    assert judge(value).entries == 6
    with refused("ima-replay-mismatch"):
        judge(bytes(48))


def test_aggregate_missing_or_of_another_boot(node, values, refused):
    good = node.ran
    changed = RuntimeList.of(values | {7: bytes(32)}, FILES)
    without = RuntimeList(good.entries[1:], good.extends[1:])
    renamed = RuntimeList()
    renamed.add(measured("/sbin/init", good.entries[0][-51:-19]))
    for wrong in (changed, without, renamed):
        node.ran = wrong
        with refused("ima-aggregate-mismatch"):
            node.judge()
    node.ran = good
    assert node.found() == []


def test_kexec_is_refused_unless_the_policy_allows_it(node, refused):
    node.more(node.ran.entries[0])
    assert node.found() == ["ima-kexec"]
    allowed = policy_of(kexec="allow")
    assert node.found(allowed) == []
    checkpoint = node.judge(allowed).checkpoint
    node.more(measured("boot_aggregate", OTHER))
    with refused("ima-aggregate-mismatch"):
        node.judge(allowed)
    with refused("ima-aggregate-mismatch"):
        node.judge(allowed, data=node.ran.entries[-1], checkpoint=checkpoint)
    node.ran.entries.pop()
    node.ran.extends.pop()
    checkpoint = replace(checkpoint, policy_sha256=policy_of().sha256)
    node.more(node.ran.entries[0])
    assert node.found(data=node.ran.entries[0], checkpoint=checkpoint) == ["ima-kexec"]


def test_malformed_entries_are_refused_as_in_any_list(node, refused):
    good = node.ran
    for code, wrong in (
        ("ima-invalid", measured("/usr/bin/tool-0", OTHER)[:4] + b"\1" * 20 + measured("/usr/bin/tool-0", OTHER)[24:]),
        ("ima-template-unknown", raw_entry(template_data(b"sha256:\0" + OTHER, b"/x\0"), "ima-xy")),
    ):
        node.ran = RuntimeList(list(good.entries), list(good.extends))
        node.more(wrong)
        with refused(code):
            node.judge()


LISTED_ENTRY = measured("/usr/bin/tool-0", hashlib.sha256(FILES[0][1]).digest())
SIGNED_ENTRY = measured("/usr/bin/tool-0", hashlib.sha256(FILES[0][1]).digest(), b"sig", template="ima-sig")


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("entry", [LISTED_ENTRY, SIGNED_ENTRY])
def test_a_listed_file_does_not_excuse_its_entry(node, entry, warm, refused):
    """An entry that is good at the first look is good in all: register, hash, sizes."""
    seen = SeenByFleet() if warm else None
    good = node.ran
    node.more(entry)
    assert node.found(seen=seen) == []
    size = entry[24]
    name_size = 28 + size
    for wrong in (
        b"\x0b" + entry[1:],
        entry[:4] + b"\1" * 20 + entry[24:],
        raw_entry(entry[name_size + 4 :] + b"x", entry[28:name_size].decode()),
        raw_entry(entry[name_size + 4 : -1], entry[28:name_size].decode()),
    ):
        node.ran = RuntimeList(good.entries[:6], good.extends[:6])
        node.more(wrong)
        with refused("ima-invalid"):
            node.judge(seen=seen)
    node.ran = RuntimeList(good.entries[:6], good.extends[:6])
    node.more(entry)
    longer = entry[:name_size] + (len(entry) - name_size - 3).to_bytes(4, "little") + entry[name_size + 4 :]
    for cut in (node.ran.data[:-1], node.ran.data.removesuffix(entry) + longer):
        with refused("ima-invalid"):
            node.judge(data=cut, seen=seen)


# --- what the fleet has seen


def test_what_the_fleet_has_seen_gives_the_same_result(node):
    seen = SeenByFleet()
    node.more(measured("/opt/evil", OTHER), violated(b"/usr/bin/tool-1"), SIGNED_ENTRY)
    first = node.judge(seen=seen)
    assert node.judge(seen=seen) == first == node.judge()
    assert [finding.id for finding in first.findings] == ["ima-file-unknown", "ima-violation"]


def test_what_one_policy_allows_is_not_remembered_for_another(node):
    seen = SeenByFleet()
    node.more(measured("/opt/evil", OTHER))
    assert node.found(policy_of(exclude=["/opt/**"]), seen=seen) == []
    assert node.found(seen=seen) == ["ima-file-unknown"]


def test_only_good_entries_are_remembered(node):
    seen = SeenByFleet()
    node.more(measured("/opt/evil", OTHER))
    node.judge(seen=seen)
    known = seen.of(policy_of().sha256, 11).recent
    assert set(known) == set(node.ran.entries[1:6])


def test_what_is_remembered_is_bounded():
    seen = SeenEntries(3)
    for n in range(3):
        seen.add(b"%d" % n, bytes(32))
    assert (len(seen.recent), len(seen.former)) == (3, 0)
    seen.add(b"3", bytes(32))
    assert (set(seen.recent), len(seen.former)) == ({b"3"}, 3)
    for n in range(4, 7):
        seen.add(b"%d" % n, bytes(32))
    assert set(seen.former) == {b"3", b"4", b"5"}
    seen.add(bytes(MAX_ENTRY_SIZE + 1), bytes(32))
    assert set(seen.recent) == {b"6"}
    seen.add(bytes(MAX_ENTRY_SIZE), bytes(32))
    assert len(seen.recent) == 2


def test_an_entry_of_the_former_generation_is_found_again(node):
    seen = SeenByFleet()
    policy = policy_of(exclude=["/opt/**"])
    node.more(measured("/opt/a", OTHER))
    expected = node.judge(policy, seen=seen)
    known = seen.of(policy.sha256, 11)
    known.former, known.recent = known.recent, {}
    assert node.judge(policy, seen=seen) == expected
    assert set(known.recent) == set(node.ran.entries[1:])


def test_policies_of_which_something_is_remembered_are_bounded():
    seen = SeenByFleet()
    first = seen.of("policy-0", 11)
    for n in range(1, MAX_POLICIES):
        seen.of(f"policy-{n}", 11)
    assert seen.of("policy-0", 11) is first
    seen.of("one more", 11)
    assert seen.of("policy-0", 11) is first
    second = seen.of("policy-2", 11)
    assert seen.of("policy-2", 12) is not second


# --- signatures


@pytest.fixture(scope="module")
def keys():
    return {"ec": ec.generate_private_key(ec.SECP256R1()), "rsa": rsa.generate_private_key(65537, 2048)}


def pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def identifier(key):
    return SubjectKeyIdentifier.from_public_key(key.public_key()).digest[-4:]


def signature(key, digest, *, kind=3, version=2, algorithm=4, name=None):
    scheme = Prehashed({4: hashes.SHA256(), 5: hashes.SHA384(), 6: hashes.SHA512()}.get(algorithm, hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        value = key.sign(digest, padding.PKCS1v15(), scheme)
    else:
        value = key.sign(digest, ec.ECDSA(scheme))
    named = identifier(key) if name is None else name
    return bytes((kind, version, algorithm)) + named + len(value).to_bytes(2, "big") + value


def signed(field, digest=OTHER, path="/opt/signed", template="ima-sig", label="sha256"):
    return measured(path, digest, field, template=template, label=label)


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_file_that_a_key_of_the_policy_signed(node, keys, kind):
    key = keys[kind]
    node.more(signed(signature(key, OTHER)))
    assert node.found(policy_of(keys=[pem(key)])) == []
    assert node.found() == ["ima-key-unknown"]
    other = ec.generate_private_key(ec.SECP256R1())
    assert node.found(policy_of(keys=[pem(other)])) == ["ima-key-unknown"]
    assert node.found(policy_of(keys=[pem(other)], revoked_keys=[pem(key)])) == ["ima-key-revoked"]


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_signatures_that_do_not_hold(node, keys, kind):
    key = keys[kind]
    good = signature(key, OTHER)
    policy = policy_of(keys=[pem(keys["ec"]), pem(keys["rsa"])])
    wrong = [
        signature(key, bytes(32)),
        signature(keys["rsa" if kind == "ec" else "ec"], OTHER, name=identifier(key)),
        good[:-1],
        good[:-1] + bytes([good[-1] ^ 1]),
        good + b"\0",
        good[:7] + b"\0\0" + good[9:],
        good[:8],
        good[:9],
        b"\3",
        signature(key, OTHER, algorithm=2),
        good[:2] + b"\x05" + good[3:],
    ]
    for each in wrong:
        alone = RuntimeList(list(node.ran.entries), list(node.ran.extends))
        alone.add(signed(each))
        whole, node.ran = node.ran, alone
        assert node.found(policy) == ["ima-signature-invalid"]
        node.ran = whole
    node.more(signed(good))
    assert node.found(policy) == []


def test_a_signature_over_another_hash(node, keys):
    key = keys["ec"]
    digest = hashlib.sha512(b"x").digest()
    node.more(signed(signature(key, digest, algorithm=6), digest, label="sha512"))
    policy = policy_of(keys=[pem(key)])
    assert node.found(policy) == []
    node.more(signed(signature(key, digest, algorithm=6), digest[:32]))
    assert node.found(policy) == ["ima-signature-invalid"]


def test_a_listed_file_with_old_content_and_a_good_signature(node, keys):
    key = keys["ec"]
    node.more(signed(signature(key, OTHER), path="/usr/bin/tool-1"))
    assert node.found(policy_of(keys=[pem(key)])) == ["ima-file-changed"]


def test_an_unsigned_file_beside_a_key(node, keys):
    node.more(signed(b""))
    assert node.found(policy_of(keys=[pem(keys["ec"])])) == ["ima-file-unknown"]


def test_signatures_of_fs_verity_are_over_more_than_the_digest(node, keys):
    key = keys["ec"]
    over = hashlib.sha256(b"\x06\x04" + OTHER).digest()
    good = signature(key, over, kind=6, version=3)
    policy = policy_of(keys=[pem(key)])
    node.more(signed(good, template="ima-sigv2", label="verity:sha256"))
    assert node.found(policy) == []
    node.more(signed(signature(key, OTHER, kind=6, version=3), template="ima-sigv2", label="verity:sha256"))
    assert node.found(policy) == ["ima-signature-invalid"]


@pytest.mark.parametrize(
    ("kind", "version", "label"),
    [(6, 3, "ima:sha256"), (3, 2, "verity:sha256"), (5, 2, "ima:sha256"), (3, 1, "ima:sha256"), (3, 3, "ima:sha256")],
)
def test_signatures_of_another_kind(node, keys, kind, version, label):
    key = keys["ec"]
    node.more(signed(signature(key, OTHER, kind=kind, version=version), template="ima-sigv2", label=label))
    assert node.found(policy_of(keys=[pem(key)])) == ["ima-signature-unsupported"]


def test_signatures_over_metadata_and_appended_ones_are_not_enough(node, keys):
    key = keys["ec"]
    policy = policy_of(keys=[pem(key)])
    good = hashlib.sha256(FILES[0][1]).digest()
    evm = [signature(key, OTHER, kind=5), b"security.ima\0", b"\1\0\0\0", b"\4", *[bytes(4)] * 2, bytes(2)]
    node.more(
        measured("/usr/bin/tool-0", good, b"", b"", b"\x30\x03", template="ima-modsig"),
        measured("/usr/bin/tool-0", good, *evm, template="evm-sig"),
        measured("/lib/listed-by-signature.ko", OTHER, signature(key, OTHER), b"", b"", template="ima-modsig"),
    )
    assert node.found(policy) == []
    node.more(
        measured("/lib/module.ko", OTHER, b"", b"", b"\x30\x03", template="ima-modsig"),
        measured("/lib/other.ko", OTHER, b"", b"", b"", template="ima-modsig"),
        measured("/opt/evm", OTHER, *evm, template="evm-sig"),
    )
    assert node.found(policy) == ["ima-signature-unsupported", "ima-file-unknown", "ima-signature-unsupported"]


# --- buffers


def buffer(name, content, digest=None):
    return measured(name, hashlib.sha256(content).digest() if digest is None else digest, content, template="ima-buf")


def test_buffers_need_a_listed_digest(node, refused):
    node.more(buffer("kexec-cmdline", b"ro quiet"))
    listed = {"kexec-cmdline": [hashlib.sha256(b"ro quiet").hexdigest()]}
    assert node.found(policy_of(buffers=listed)) == []
    assert node.found(policy_of(buffers={"dm_table_load": listed["kexec-cmdline"]})) == ["ima-buffer-unknown"]
    (finding,) = node.judge().findings
    assert finding.id == "ima-buffer-unknown"
    assert "kexec-cmdline" in finding.detail
    node.more(buffer("kexec-cmdline", b"init=/bin/sh", hashlib.sha256(b"ro quiet").digest()))
    with refused("ima-invalid"):
        node.judge(policy_of(buffers=listed))


def test_a_key_is_not_trusted_because_the_kernel_loaded_it(node, keys, certificate_of):
    stranger = ec.generate_private_key(ec.SECP256R1())
    node.more(buffer(".ima", certificate_of(stranger)), signed(signature(stranger, OTHER)))
    policy = policy_of(keys=[pem(keys["ec"])])
    assert node.found(policy) == ["ima-buffer-unknown", "ima-key-unknown"]
    assert node.found(policy_of(keys=[pem(stranger)])) == []


def test_a_key_of_the_policy_may_be_loaded(node, keys, certificate_of):
    key = keys["ec"]
    good = certificate_of(key)
    node.more(buffer(".ima", good))
    assert node.found(policy_of(keys=[pem(key)])) == []
    assert node.found() == ["ima-buffer-unknown"]
    node.more(buffer(".ima", good[:-1]), buffer(".ima", b"\x30"), buffer(".ima", b"no certificate"))
    assert node.found(policy_of(keys=[pem(key)])) == ["ima-buffer-unknown"] * 3


# --- anything


@given(data=st.binary(max_size=400), whole=st.booleans())
def test_any_tail_gives_findings_or_the_one_kind_of_error(data, whole, property_node):
    entries, quote, policy = property_node
    start = b"" if whole else entries
    try:
        judged = judge_runtime(start + data, quote, None, policy)
    except ImaRefused:
        return
    assert judged.entries == 6


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unnoticed(at, bit, property_node):
    entries, quote, policy = property_node
    at %= len(entries)
    changed = entries[:at] + bytes([entries[at] ^ 1 << bit]) + entries[at + 1 :]
    with pytest.raises(ImaRefused):
        judge_runtime(changed, quote, None, policy)
