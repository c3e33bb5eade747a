"""Starts of applications: when their log is due, and what its findings do to an appraisal."""

from dataclasses import replace

import pytest

from umec_attest.appraisal import Verdict, appraise, of_boot
from umec_attest.bootlog import Finding, parse_boot_log, verify_boot_log
from umec_attest.errors import StartLogMismatch
from umec_attest.starts.checkpoint import StartCheckpoint
from umec_attest.starts.judge import StartsJudged
from umec_policies import load_default

PCR_15 = b"\x15" * 32
NOTHING = (15, bytes(32))


@pytest.fixture
def judge(kit, tpm):
    def run(starts, *, host=True, quoted=(15, PCR_15)):
        values = kit.replay_events(kit.good_events())
        quote = tpm.quote_of(values | dict([quoted]))
        reference = kit.make_reference(values, **({"starts": True} if host else {"ignored": {15: "no host"}}))
        return appraise(
            node="lamp-7",
            quote=quote,
            log=verify_boot_log(parse_boot_log(kit.write_log(kit.good_events())), of_boot(quote, reference)),
            reference=reference,
            policies=load_default("appraisal"),
            previous=None,
            now=kit.NOW,
            starts=starts,
        )

    return run


@pytest.fixture
def started(tpm):
    """A log that was judged up to the quote of this file."""
    clock = tpm.quote_of({15: PCR_15}).clock_info

    def run(*findings, **changes):
        kept = StartCheckpoint(clock.reset_count, clock.restart_count, entries=1, pcr=PCR_15)
        return StartsJudged(tuple(Finding(one, "\u2026") for one in findings), replace(kept, **changes), 1)

    return run


def said(appraisal):
    return appraisal.verdict, [finding.id for finding in appraisal.findings]


def test_a_host_that_started_what_the_site_decided(judge, started):
    assert said(judge(started())) == (Verdict.AFFIRMING, [])


def test_a_log_is_due_from_a_host_alone(judge):
    assert said(judge(None)) == (Verdict.CONTRAINDICATED, ["start-log-missing"])
    assert said(judge(None, host=False, quoted=NOTHING)) == (Verdict.AFFIRMING, [])


def test_what_is_wrong_with_a_log_or_with_a_start_is_a_finding(judge, started):
    refused = StartLogMismatch("it does not give PCR 15")
    assert said(judge(refused)) == (Verdict.CONTRAINDICATED, ["start-log-mismatch"])
    assert said(judge(started("start-undecided"))) == (Verdict.CONTRAINDICATED, ["start-undecided"])


@pytest.mark.parametrize(
    "changes", [{"pcr": bytes(32)}, {"reset_count": 4}, {"restart_count": 9}], ids=["value", "boot", "start of the TPM"]
)
def test_a_log_that_was_judged_by_another_quote_is_not_taken_on(judge, started, changes):
    assert said(judge(started(**changes))) == (Verdict.CONTRAINDICATED, ["start-log-mismatch"])


def test_a_log_that_was_judged_for_a_host_says_nothing_of_another_node(judge, started):
    assert said(judge(started(pcr=bytes(32)), quoted=NOTHING)) == (Verdict.AFFIRMING, [])
    assert said(judge(started(pcr=bytes(32)), host=False, quoted=NOTHING)) == (
        Verdict.CONTRAINDICATED,
        ["start-log-mismatch"],
    )
