"""Logs of starts of applications: replayed against a quote, and each start against the site's own decision."""

import contextlib
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.errors import StartLogInvalid, StartLogMismatch, StartLogOutdated
from umec_attest.quote import VerifiedQuote
from umec_attest.starts.checkpoint import StartCheckpoint
from umec_attest.starts.decisions import DecisionRules
from umec_attest.starts.entry import MAX_ENTRY, StartEntry, parse_start
from umec_attest.starts.judge import count_starts, judge_starts
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.attest import ClockInfo
from umec_core.jose import KeySet, sign_jwt

KEY, OTHER_KEY = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
ISSUER = "https://edge.example:8443/platform/v1"
RULES = DecisionRules(KeySet([KEY.public_key()]), ISSUER)
NOW = datetime(2034, 11, 22, 12, 0, tzinfo=UTC)
NODE, BOOT = "pole-17", 7
IMAGE, OTHER_IMAGE = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32


def seconds(moment):
    return int(moment.timestamp())


def start(number=0, at=NOW, *, claims=None, key=KEY, typ="umec-admission+jwt", **changes):
    """A start as an honest node logs it; `claims` and `key` change its decision, `changes` what the node says."""
    said = {"boot": BOOT, "number": number, "time": seconds(at), "node": NODE, "tenant": "acme", "instance": "cam-1"}
    said |= {"image": IMAGE} | changes
    decided = {
        "iss": ISSUER,
        "iat": seconds(at) - 1,
        "exp": seconds(at) + 119,
        "tenant": "acme",
        "node": NODE,
        "instance": "cam-1",
        "digest": IMAGE,
        **(claims or {}),
    }
    return StartEntry(decision=sign_jwt(decided, key, typ=typ), **said)


def lines(*entries):
    return b"".join((one if isinstance(one, bytes) else one.to_bytes()) + b"\n" for one in entries)


def pcr_of(data):
    value = bytes(32)
    for line in data.splitlines():
        value = hashlib.sha256(value + hashlib.sha256(line).digest()).digest()
    return value


def quote(data, *, reset=BOOT, restart=0, pcrs=None):
    values = {15: pcr_of(data)} if pcrs is None else pcrs
    return VerifiedQuote({HashAlgorithm.SHA256: values}, ClockInfo(1_000, reset, restart, safe=True), 1)


def judge(data, quoted=None, checkpoint=None, *, asked=NOW, now=NOW, rules=RULES, node=NODE, **more):
    quoted = quote(data) if quoted is None else quoted
    return judge_starts(data, quoted, checkpoint, node=node, rules=rules, asked_at=asked, now=now, **more)


def ids(judged):
    return [finding.id for finding in judged.findings]


def test_decided_starts_are_good_and_the_next_round_goes_on_from_there():
    log = [start(0), start(1, instance="cam-2", claims={"instance": "cam-2"}), start(2)]
    first = judge(lines(*log[:2]))
    assert (ids(first), first.entries, first.whole) == ([], 2, True)
    kept = StartCheckpoint.from_json(json.loads(json.dumps(first.checkpoint.to_json())))
    assert kept == first.checkpoint
    steady = judge(b"", quote(lines(*log[:2])), kept)
    assert (steady.entries, steady.checkpoint.entries) == (0, 2)
    last = judge(lines(log[2]), quote(lines(*log)), kept)
    assert (ids(last), last.checkpoint.entries, last.checkpoint.pcr) == ([], 3, pcr_of(lines(*log)))
    assert judge(b"", quote(b"", reset=1)).entries == 0  # a boot in which nothing was started


def test_what_was_started_after_the_quote_waits_and_is_not_even_read():
    log = lines(start(0), start(1))
    judged = judge(log + b"no entry\n", quote(log))
    assert (ids(judged), judged.checkpoint.entries) == ([], 2)
    assert judge(log, quote(b"")).entries == 0


@pytest.mark.parametrize(
    "changed",
    [
        lambda log: (log[0], log[2]),
        lambda log: (log[1], log[0], log[2]),
        lambda log: log[:2],
        lambda _: (),
        lambda log: (log[0], replace(log[1], tenant="other"), log[2]),
        lambda log: (log[0], *log),
    ],
    ids=["left-out", "reordered", "cut", "empty", "changed", "repeated"],
)
def test_a_log_that_is_not_what_was_extended_is_refused(changed):
    log = [start(0), start(1), start(2)]
    assert ids(judge(lines(*log))) == []
    with pytest.raises(StartLogMismatch):
        judge(lines(*changed(log)), quote(lines(*log)))


def test_a_part_counts_for_nothing_by_itself():
    log = [start(0), start(1)]
    part = judge(lines(log[0]), quote(lines(*log)), more=True)
    assert (part.whole, part.checkpoint.entries, part.checkpoint.asked_at) == (False, 1, None)
    rest = judge(lines(log[1]), quote(lines(*log)), part.checkpoint)
    assert (rest.whole, rest.checkpoint.entries, rest.checkpoint.asked_at) == (True, 2, NOW)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"a start",
        b"[]",
        b'{"boot":7}',
        json.dumps(json.loads(start(0).to_bytes())).encode(),  # with blanks
        start(0, tenant="Acme").to_bytes(),
        start(0, image="latest").to_bytes(),
        start(0, time=-1).to_bytes(),
        start(0, time=True).to_bytes(),
        start(0, time=1.5).to_bytes(),
        start(0).to_bytes().replace(b'"number":0', b'"number":0,"number":0'),
        start(0).to_bytes().replace(b'"boot":7', b'"boot":7,"more":1'),
        start(1).to_bytes(),  # the number of another place
        start(0, boot=BOOT - 1).to_bytes(),  # of another boot
        replace(start(0), decision="no JWT").to_bytes(),
        replace(start(0), decision="a.b." + "c" * 7168).to_bytes(),
        replace(start(0), decision="a.b." + "c" * MAX_ENTRY).to_bytes(),
    ],
)
def test_somebody_else_who_extends_the_pcr_is_noticed_whatever_he_tells(line):
    assert ids(judge(lines(start(0)))) == []
    with pytest.raises(StartLogInvalid):
        judge(lines(line))
    with pytest.raises(StartLogMismatch):
        judge(b"", quote(lines(line)))


def test_each_member_has_its_bounds():
    good = json.loads(start(0).to_bytes())
    bounds = {"boot": 2**32 - 1, "number": 8191, "time": 2**40}

    def line(**changes):
        return json.dumps(good | changes, sort_keys=True, separators=(",", ":")).encode()

    assert parse_start(line(**bounds)).to_bytes() == line(**bounds)
    for name, most in bounds.items():
        with pytest.raises(StartLogInvalid):
            parse_start(line(**{name: most + 1}))
    for name in ("tenant", "image", "decision"):
        for other in (5, None, [good[name]]):
            with pytest.raises(StartLogInvalid):
                parse_start(line(**{name: other}))


def test_a_whole_log_ends_where_the_quote_was_made():
    log = lines(start(0), start(1))
    assert (count_starts(log, quote(log)), count_starts(b"", quote(b""))) == (2, 0)
    for other in (log[: log.index(b"\n") + 1], log + lines(start(2)), lines(start(1), start(0)), b""):
        with pytest.raises(StartLogMismatch):
            count_starts(other, quote(log))
    with pytest.raises(StartLogInvalid):
        count_starts(b"x\n", quote(b"x\n"))


def test_a_log_that_is_cut_in_a_line_is_refused():
    log = lines(start(0), start(1))
    with pytest.raises(StartLogInvalid):
        judge(log[:-1], quote(log))


def test_a_quote_without_the_pcr_proves_nothing():
    with pytest.raises(StartLogMismatch):
        judge(b"", quote(b"", pcrs={0: bytes(32)}))


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        (start(0, key=OTHER_KEY), "start-undecided"),
        (start(0, typ="umec-standings+jwt"), "start-undecided"),
        (start(0, claims={"iss": "https://other.example/platform/v1"}), "start-undecided"),
        (start(0, claims={"iss": None}), "start-undecided"),
        (start(0, claims={"exp": None}), "start-undecided"),
        (replace(start(0), decision=start(0).decision[:-4] + "AAAA"), "start-undecided"),
        (start(0, claims={"node": "pole-18"}), "start-of-another-node"),
        (start(0, node="pole-18"), "start-of-another-node"),
        (start(0, node="pole-18", claims={"node": "pole-18"}), "start-of-another-node"),
        (start(0, tenant="other"), "start-not-as-decided"),
        (start(0, claims={"tenant": "other"}), "start-not-as-decided"),
        (start(0, claims={"instance": "cam-2"}), "start-not-as-decided"),
        (start(0, image=OTHER_IMAGE), "start-not-as-decided"),
        (start(0, claims={"exp": seconds(NOW)}), "start-decision-expired"),
        (start(0, claims={"iat": seconds(NOW) + 61}), "start-decision-expired"),
        (start(0, NOW + timedelta(seconds=62)), "start-decision-expired"),  # decided after it was seen
    ],
)
def test_a_start_that_the_site_did_not_decide_is_told_by_its_image(entry, found):
    judged = judge(lines(entry))
    assert ids(judged) == [found]
    assert entry.image in judged.findings[0].detail
    assert judged.findings[0].found == entry.image
    # it stays for the whole boot
    good = start(1)
    later = judge(lines(good), quote(lines(entry, good)), judged.checkpoint)
    assert ids(later) == [found]


def test_a_verifier_without_keys_believes_no_start():
    nobody = DecisionRules(None, ISSUER)
    assert ids(judge(lines(start(0)), rules=nobody)) == ["start-undecided"]
    assert ids(judge(b"", rules=nobody)) == []


def test_an_old_decision_is_none_whatever_the_clock_of_the_node_says():
    """The start was after the challenge of the last round, in which it was not; the node says otherwise."""
    old = start(0, NOW - timedelta(minutes=10))
    assert ids(judge(lines(old), asked=NOW - timedelta(minutes=10), now=NOW - timedelta(minutes=9))) == []
    before = judge(b"", asked=NOW - timedelta(minutes=5)).checkpoint
    assert ids(judge(lines(old), checkpoint=before)) == ["start-decision-expired"]
    # at the beginning of another boot, what was known of the time still is
    assert ids(judge(lines(old), checkpoint=before.of_next_boot())) == ["start-decision-expired"]
    # a round that came in between by a hair is no reason
    close = judge(b"", asked=NOW).checkpoint
    assert ids(judge(lines(start(0, NOW - timedelta(minutes=2, seconds=30))), checkpoint=close)) == []


def test_a_checkpoint_of_another_boot_counts_for_nothing():
    first = judge(lines(start(0))).checkpoint
    for data in (b"", lines(start(0))):
        with pytest.raises(StartLogOutdated):
            judge(b"", quote(data, reset=BOOT + 1), first)
    begun = first.of_next_boot()
    assert judge(b"", quote(b"", reset=BOOT + 1), begun).checkpoint.reset_count == BOOT + 1
    assert (begun.entries, begun.pcr, begun.asked_at) == (0, bytes(32), NOW)


def test_a_tpm_that_slept_goes_on_where_it_was_or_its_log_begins_anew():
    """Its counter of restarts grows either way; what was judged long ago is not judged by the time of now."""
    log, later = [start(0), start(1)], NOW + timedelta(minutes=30)
    first = judge(lines(log[0])).checkpoint
    resumed = judge(lines(log[1]), quote(lines(*log), restart=1), first)
    assert (ids(resumed), resumed.checkpoint.entries, resumed.checkpoint.restart_count) == ([], 2, 1)
    assert ids(judge(b"", quote(lines(*log), restart=1), resumed.checkpoint, asked=later, now=later)) == []
    for data, quoted in ((b"", b""), (b"", lines(start(0, later))), (lines(log[1]), lines(start(0, later)))):
        with pytest.raises(StartLogOutdated):
            judge(data, quote(quoted, restart=1), first)
        with pytest.raises(StartLogMismatch):  # it did not sleep
            judge(data, quote(quoted), first)
    with pytest.raises(StartLogMismatch):  # asked for from its beginning, it has no excuse
        judge(lines(log[1]), quote(lines(*log), restart=1), first.of_next_boot())


def test_a_part_does_not_hide_that_the_tpm_restarted():
    log = [start(0), start(1), start(2)]
    first = judge(lines(log[0])).checkpoint
    part = judge(lines(log[1]), quote(lines(log[2]), restart=1), first, more=True).checkpoint
    with pytest.raises(StartLogOutdated):
        judge(lines(log[2]), quote(lines(log[2]), restart=1), part)


@pytest.mark.parametrize(
    "change",
    [
        {"entries": -1},
        {"entries": True},
        {"reset_count": "7"},
        {"pcr": "00"},
        {"pcr": 5},
        {"asked_at": "now"},
        {"findings": [{"id": "x"}]},
        {"more": 1},
    ],
)
def test_a_checkpoint_that_is_none_is_refused(change):
    good = judge(lines(start(0))).checkpoint.to_json()
    assert StartCheckpoint.from_json(good).entries == 1
    with pytest.raises(StartLogInvalid):
        StartCheckpoint.from_json({**good, **change})
    with pytest.raises(StartLogInvalid):
        StartCheckpoint.from_json({name: value for name, value in good.items() if name not in change} | {"x": 1})


@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_any_bytes_give_an_entry_or_the_one_error(data):
    with contextlib.suppress(StartLogInvalid):
        assert parse_start(data).to_bytes() == data


@given(
    st.builds(
        StartEntry,
        boot=st.integers(0, 2**32 - 1),
        number=st.integers(0, 8191),
        time=st.integers(0, 2**40),
        node=st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True),
        tenant=st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True),
        instance=st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True),
        image=st.binary(min_size=32, max_size=32).map(lambda digest: f"sha256:{digest.hex()}"),
        decision=st.from_regex(r"[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,40}", fullmatch=True),
    )
)
def test_what_is_written_is_read(entry):
    assert parse_start(entry.to_bytes()) == entry


@given(st.binary(max_size=300))
def test_any_log_is_judged_or_refused(data):
    for quoted in (quote(data), quote(b"x")):
        with contextlib.suppress(StartLogInvalid, StartLogMismatch):
            judge(data, quoted, more=True)
