"""A boot that was judged before: when it is used again, when it must not be, and that it changes no result."""

import hashlib
from datetime import timedelta

import pytest

from umec_attest.appraisal import AppraisalCache, Verdict, appraise, judge_boot
from umec_attest.bootlog import parse_boot_log, verify_boot_log
from umec_attest.errors import BootLogReplayMismatch
from umec_attest.tpm.attest import ClockInfo
from umec_policies import load_default

SHA256 = "ab" * 32


@pytest.fixture
def booted(kit, tpm):
    """Quote, replayed log and reference set of a machine that booted `events`, where the good ones are expected."""

    def run(events=None, **changes):
        made = kit.good_events() if events is None else events
        quote = tpm.quote_of(kit.replay_events(made), **changes)
        log = verify_boot_log(parse_boot_log(kit.write_log(made)), quote)
        return quote, log, kit.make_reference(kit.replay_events(kit.good_events()))

    return run


def other_kernel(kit):
    events = kit.good_events()
    events[-2].digest = hashlib.sha256(b"another kernel").digest()
    return events


def appraised(kit, quote, log, reference, **changes):
    arguments = {"node": "lamp-7", "policies": load_default("appraisal"), "previous": None, "now": kit.NOW}
    return appraise(quote=quote, log=log, reference=reference, **(arguments | changes))


def test_a_kept_boot_gives_the_same_appraisal(kit, booted):
    for events in (kit.good_events(), other_kernel(kit)):
        quote, log, reference = booted(events)
        cache = AppraisalCache()
        assert cache.get(SHA256, quote, reference) is None
        kept = cache.put(SHA256, judge_boot(quote, log, reference))
        later, _, _ = booted(events, clock_info=ClockInfo(2_000_000, 5, 2, safe=True))
        assert cache.get(SHA256, later, reference) is kept
        assert appraised(kit, later, kept, reference) == appraised(kit, later, log, reference)


def test_a_refused_log_is_kept_with_its_finding(kit, booted):
    quote, _, reference = booted()
    kept = judge_boot(quote, BootLogReplayMismatch("PCR 4"), reference)
    assert kept.facts is None
    assert [finding.id for finding in appraised(kit, quote, kept, reference).findings] == ["bootlog-replay-mismatch"]


def test_another_log_other_values_or_another_set_is_not_known(kit, booted):
    quote, log, reference = booted()
    cache = AppraisalCache()
    cache.put(SHA256, judge_boot(quote, log, reference))
    changed, _, _ = booted(other_kernel(kit))
    newer = kit.make_reference(kit.replay_events(kit.good_events()), version=2)
    assert cache.get("cd" * 32, quote, reference) is None
    assert cache.get(SHA256, changed, reference) is None
    assert cache.get(SHA256, quote, newer) is None
    assert cache.get(SHA256, quote, reference) is not None


def test_a_boot_of_another_quote_or_set_counts_for_nothing(kit, booted):
    quote, log, reference = booted()
    good = judge_boot(quote, log, reference)
    assert appraised(kit, quote, good, reference).verdict is Verdict.AFFIRMING
    changed, _, _ = booted(other_kernel(kit))
    found = appraised(kit, changed, good, reference)
    assert found.verdict is Verdict.CONTRAINDICATED
    assert {finding.id for finding in found.findings} == {"bootlog-replay-mismatch", "pcr-unexpected"}
    newer = kit.make_reference(kit.replay_events(kit.good_events()), version=2)
    found = appraised(kit, quote, good, newer)
    assert found.verdict is Verdict.CONTRAINDICATED
    assert {finding.id for finding in found.findings} == {"bootlog-replay-mismatch"}


def test_time_is_not_kept(kit, booted):
    quote, log, reference = booted()
    kept = judge_boot(quote, log, reference)
    late = appraised(kit, quote, kept, reference, now=kit.NOW + timedelta(days=30))
    assert [finding.id for finding in late.findings] == ["reference-expired"]


def test_what_was_of_no_use_for_longest_gives_way(booted):
    quote, log, reference = booted()
    cache = AppraisalCache(size=2)
    boot = judge_boot(quote, log, reference)
    for name in ("first", "second"):
        cache.put(name, boot)
    assert cache.get("first", quote, reference) is boot
    cache.put("third", boot)
    known = {name for name in ("first", "second", "third") if cache.get(name, quote, reference)}
    assert known == {"first", "third"}
