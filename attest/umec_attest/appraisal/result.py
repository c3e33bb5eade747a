"""Appraisal: what a verified quote and a judged boot are worth against a reference set, decided by policies.

All findings are collected, each with a stable id; a finding whose id is not known to be harmless contradicts. Policies
see counts and facts, and say "trust", "degrade" or neither.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, unique
from types import MappingProxyType
from typing import Any, Final

from umec_attest.appraisal.boot import BootJudged, judge_boot
from umec_attest.appraisal.tiers import JudgedFinding, trust_vector
from umec_attest.bootlog.facts import BootFacts
from umec_attest.bootlog.findings import Finding
from umec_attest.bootlog.replay import ReplayedLog
from umec_attest.clock import ClockState, clock_findings, next_clock_state
from umec_attest.errors import (
    BootLogRefused,
    BootLogReplayMismatch,
    ImaRefused,
    ImaReplayMismatch,
    StartLogMismatch,
    StartLogRefused,
)
from umec_attest.findings import Tier
from umec_attest.ima import IMA_PCR, RuntimeJudged
from umec_attest.quote import VerifiedQuote
from umec_attest.reference import ReferenceSet
from umec_attest.starts.entry import STARTS_PCR
from umec_attest.starts.judge import StartsJudged
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_policies import Decision, Entity, Fact, PolicySet, Request

__all__ = ["Appraisal", "Verdict", "appraise"]

_ISSUER: Final = "verifier"
_CLOCK: Final = frozenset({"clock-fell", "firmware-version-fell", "reset-count-fell", "restart-count-fell"})


@unique
class Verdict(Enum):
    """EAR's status: the tier of the whole appraisal."""

    AFFIRMING = "affirming"
    WARNING = "warning"
    CONTRAINDICATED = "contraindicated"


_VERDICTS: Final = ((Verdict.AFFIRMING, "trust", Tier.AFFIRMING), (Verdict.WARNING, "degrade", Tier.WARNING))
"""What policies are asked for, from the best on, and the worst finding that leaves room for it."""


@dataclass(frozen=True, slots=True)
class Appraisal:
    """The result for one round. Only `appraise` makes one.

    `policy_ids` decided; `facts_digest` and `policy_digest` (hex) are what a decision can be cached by; `clock_state`
    is to be kept for the next round; `boot_facts` is None where no log replayed.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    trust_vector: Mapping[str, int]
    boot_facts: BootFacts | None
    facts: Mapping[str, Fact]
    facts_digest: str
    policy_ids: tuple[str, ...]
    policy_digest: str
    clock_state: ClockState

    def to_json(self) -> dict[str, Any]:
        """Return {"verdict", "findings", "trust_vector", …} for JSON."""
        return {
            "verdict": self.verdict.value,
            "findings": [finding.to_json() for finding in self.findings],
            "trust_vector": dict(self.trust_vector),
            "policies": list(self.policy_ids),
            "facts_digest": self.facts_digest,
            "policy_digest": self.policy_digest,
        }


def appraise(
    *,
    node: str,
    quote: VerifiedQuote,
    log: BootJudged | ReplayedLog | BootLogRefused | None,
    reference: ReferenceSet,
    policies: PolicySet,
    previous: ClockState | None,
    now: datetime,
    runtime: RuntimeJudged | ImaRefused | None = None,
    starts: StartsJudged | StartLogRefused | None = None,
    unannounced: Finding | None = None,
    version: Finding | None = None,
) -> Appraisal:
    """Appraise a node.

    `log` is this boot's log, replayed against this very quote (a node that did not reboot need not send it again), or
    why it was refused, or None if there is none, or this boot as it was judged before (`AppraisalCache`). `previous` is
    the state of the last accepted round under this AK. `runtime` is what ran since the boot, judged up to this quote,
    or why its list was refused; None is a finding where the reference set says what may run. `starts` is the same
    of the log of applications that were started, where the set says that there is one. `unannounced` is what
    whoever keeps announcements has found about this boot (`umec_attest.resets`), `version` what whoever keeps versions
    has found about the one that the node runs (`outdated_finding`, `umec_attest.floors`). Nothing raises: whatever is
    wrong is a finding.
    """
    boot = log if isinstance(log, BootJudged) else judge_boot(quote, log, reference)
    if not boot.holds_for(quote, reference):
        other = BootLogReplayMismatch("the boot was judged by another quote or reference set")
        boot = judge_boot(quote, other, reference)
    if isinstance(runtime, RuntimeJudged) and not _is_of(runtime, quote, reference):
        runtime = ImaReplayMismatch("the list was judged by another quote or reference set")
    if isinstance(starts, StartsJudged) and not _are_of(starts, quote, reference):
        starts = StartLogMismatch("the log of starts was judged by another quote or reference set")
    judged = (
        *boot.findings,
        *_runtime_findings(runtime, reference),
        *_start_findings(starts, reference),
        *_reference_findings(reference, now),
        *(JudgedFinding(finding, "hardware") for finding in clock_findings(quote, previous)),
        *(() if unannounced is None else (JudgedFinding(unannounced, "hardware"),)),
        *(() if version is None else (JudgedFinding(version, "executables"),)),
    )
    facts = _facts(node, judged, boot, reference, now) | {
        "runtime_judged": isinstance(runtime, RuntimeJudged),
        "reset_unannounced": unannounced is not None,
    }
    verdict, decision, decided = _decide(node, judged, facts, reference, policies)
    return Appraisal(
        verdict=verdict,
        findings=tuple(item.finding for item in judged),
        trust_vector=trust_vector(judged, runtime=isinstance(runtime, RuntimeJudged)),
        boot_facts=boot.facts,
        facts=MappingProxyType(facts),
        facts_digest=decision.facts_digest,
        policy_ids=decided,
        policy_digest=policies.digest,
        clock_state=_clock_state(quote, previous, judged),
    )


def _decide(
    node: str,
    judged: Sequence[JudgedFinding],
    facts: Mapping[str, Fact],
    reference: ReferenceSet,
    policies: PolicySet,
) -> tuple[Verdict, Decision, tuple[str, ...]]:
    """Ask the policies for the best verdict that the findings leave room for, then for the next one.

    A result is of no higher tier than the worst claim of its trust vector (draft-ietf-rats-ear, ear.status): policies
    may be stricter than the findings, and never milder.
    """
    worst = max((item.tier for item in judged), default=Tier.AFFIRMING)
    principal, resource = Entity("Node", node), Entity("ReferenceSet", reference.name)
    for verdict, action, limit in _VERDICTS:
        decision = policies.decide(Request(principal, action, resource, facts))
        if decision.allowed and worst <= limit:
            return verdict, decision, decision.policies
    return Verdict.CONTRAINDICATED, decision, () if decision.allowed else decision.policies


def _reference_findings(reference: ReferenceSet, now: datetime) -> Iterator[JudgedFinding]:
    if now >= reference.expires:
        detail = f"the reference set of {reference.name} expired at {reference.expires:%Y-%m-%dT%H:%M:%SZ}"
        yield JudgedFinding(Finding("reference-expired", detail), "executables")


def _runtime_findings(runtime: RuntimeJudged | ImaRefused | None, reference: ReferenceSet) -> Iterator[JudgedFinding]:
    """All are about files: the kernel measures a program as the file that it was read from."""
    if runtime is None:
        if reference.runtime is not None:
            missing = Finding("ima-missing", "the reference set says what may run, and no list of what ran came along")
            yield JudgedFinding(missing, "file-system")
        return
    if isinstance(runtime, ImaRefused):
        yield JudgedFinding(Finding(runtime.code, runtime.detail), "file-system")
        return
    for finding in runtime.findings:
        yield JudgedFinding(finding, "file-system")


def _start_findings(starts: StartsJudged | StartLogRefused | None, reference: ReferenceSet) -> Iterator[JudgedFinding]:
    """All are about programs: what an application is, its image says."""
    if starts is None:
        if reference.starts:
            missing = Finding("start-log-missing", "applications were started, and no log of their starts came along")
            yield JudgedFinding(missing, "executables")
        return
    if isinstance(starts, StartLogRefused):
        yield JudgedFinding(Finding(starts.code, starts.detail), "executables")
        return
    for finding in starts.findings:
        yield JudgedFinding(finding, "executables")


def _are_of(starts: StartsJudged, quote: VerifiedQuote, reference: ReferenceSet) -> bool:
    """Tell whether a log of starts was judged up to this very quote, of this boot, for this reference set."""
    checkpoint, info = starts.checkpoint, quote.clock_info
    return (
        reference.starts
        and quote.pcrs.get(HashAlgorithm.SHA256, {}).get(STARTS_PCR) == checkpoint.pcr
        and (checkpoint.reset_count, checkpoint.restart_count) == (info.reset_count, info.restart_count)
    )


def _is_of(runtime: RuntimeJudged, quote: VerifiedQuote, reference: ReferenceSet) -> bool:
    """Tell whether a list was judged up to this very quote, of this boot, by the policy of this reference set."""
    checkpoint, policy = runtime.checkpoint, reference.runtime
    return (
        checkpoint.pcr in {bank.get(IMA_PCR) for bank in quote.pcrs.values()}
        and checkpoint.reset_count == quote.clock_info.reset_count
        and policy is not None
        and checkpoint.policy_sha256 == policy.sha256
    )


def _facts(
    node: str, judged: Iterable[JudgedFinding], boot: BootJudged, reference: ReferenceSet, now: datetime
) -> dict[str, Fact]:
    found = [(item.finding.id, item.tier) for item in judged]
    return {
        "issuer": _ISSUER,
        "subject": node,
        "pcrs_match": not any(identifier.startswith("pcr-") for identifier, _ in found),
        "log_replays": boot.facts is not None,
        "secure_boot": boot.facts is not None and boot.facts.secure_boot is True,
        "clock_ok": not any(identifier in _CLOCK for identifier, _ in found),
        "firmware_model": boot.model or "",
        "excused": sum(identifier == "excused" for identifier, _ in found),
        "runtime_contradictions": sum(
            identifier.startswith("ima-") and tier is Tier.CONTRAINDICATED for identifier, tier in found
        ),
        "reference_version": reference.version,
        "reference_age_days": max((now - reference.issued).days, 0),
        "contradictions": sum(tier is Tier.CONTRAINDICATED for _, tier in found),
        "warnings": sum(tier is Tier.WARNING for _, tier in found),
    }


def _clock_state(quote: VerifiedQuote, previous: ClockState | None, judged: Iterable[JudgedFinding]) -> ClockState:
    """What went backwards does not become the new measure: else the second round after it would be a good one."""
    if previous is not None and any(item.finding.id in _CLOCK for item in judged):
        return previous
    return next_clock_state(quote, previous)
