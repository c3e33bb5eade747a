"""Appraisal: what a verified quote and a replayed log are worth against a reference set, decided by policies.

All findings are collected, each with a stable id; a finding whose id is not known to be harmless contradicts. Policies
see counts and facts, and say "trust", "degrade" or neither.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, unique
from types import MappingProxyType
from typing import Any, Final

from umec_attest.bootlog.facts import BootFacts, extract_facts
from umec_attest.bootlog.findings import Finding
from umec_attest.bootlog.replay import ReplayedLog
from umec_attest.clock import ClockState, clock_findings, next_clock_state
from umec_attest.errors import BootLogRefused, BootLogReplayMismatch
from umec_attest.quote import VerifiedQuote
from umec_attest.reference import ReferenceSet
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_policies import Entity, Fact, PolicySet, Request

__all__ = ["INFORMATION", "WARNINGS", "Appraisal", "Verdict", "appraise"]

_ISSUER: Final = "verifier"

INFORMATION: Final = frozenset({"clock-unsafe", "rebooted"})
"""Findings that are worth telling, and nothing else."""
WARNINGS: Final = frozenset({"boot-application-early", "clock-unsafe-long", "firmware-error", "secure-boot-off"})
"""Findings that somebody should look at. Every other one contradicts what is expected."""

_CLOCK: Final = frozenset({"clock-fell", "firmware-version-fell", "reset-count-fell", "restart-count-fell"})

_AFFIRMING, _WARNING, _CONTRAINDICATED = 2, 32, 96
"""AR4SI trust tiers; 0 is "no claim"."""
_CLAIMS: Final = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)
_JUDGED: Final = frozenset({"instance-identity", "configuration", "executables", "hardware"})
"""What a quote and a boot log say something about; for the others the vector says 0, no claim."""
_CLAIM_OF_PCR: Final = {0: "hardware", 2: "hardware", 1: "configuration", 3: "configuration", 5: "configuration"} | {
    6: "configuration",
    7: "configuration",
}
"""Firmware is hardware to whom runs on it; every PCR that is not here holds executables, or what steers them."""


@unique
class Verdict(Enum):
    """EAR's status: the tier of the whole appraisal."""

    AFFIRMING = "affirming"
    WARNING = "warning"
    CONTRAINDICATED = "contraindicated"


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


@dataclass(frozen=True, slots=True)
class _Judged:
    """A finding, and the AR4SI claim that it is about."""

    finding: Finding
    claim: str

    @property
    def tier(self) -> int:
        if self.finding.id in INFORMATION:
            return _AFFIRMING
        return _WARNING if self.finding.id in WARNINGS else _CONTRAINDICATED


def appraise(
    *,
    node: str,
    quote: VerifiedQuote,
    log: ReplayedLog | BootLogRefused | None,
    reference: ReferenceSet,
    policies: PolicySet,
    previous: ClockState | None,
    now: datetime,
) -> Appraisal:
    """Appraise a node.

    `log` is this boot's log, replayed against this very quote (a node that did not reboot need not send it again: the
    kept one is replayed), or why it was refused, or None if there is none. `previous` is the state of the last accepted
    round under this AK. Nothing raises: whatever is wrong is a finding.
    """
    if isinstance(log, ReplayedLog) and log.pcrs != quote.pcrs.get(log.algorithm):
        log = BootLogReplayMismatch("the log was replayed against another quote")
    boot_facts = extract_facts(log) if isinstance(log, ReplayedLog) else None
    judged = (
        *_log_findings(log, boot_facts),
        *_pcr_findings(quote, reference),
        *_reference_findings(reference, now),
        *(_Judged(finding, "hardware") for finding in clock_findings(quote, previous)),
    )
    facts = _facts(node, judged, boot_facts, reference, now)
    principal, resource = Entity("Node", node), Entity("ReferenceSet", reference.name)
    verdict, decision = Verdict.AFFIRMING, policies.decide(Request(principal, "trust", resource, facts))
    if not decision.allowed:
        verdict, decision = Verdict.WARNING, policies.decide(Request(principal, "degrade", resource, facts))
    if not decision.allowed:
        verdict = Verdict.CONTRAINDICATED
    return Appraisal(
        verdict=verdict,
        findings=tuple(item.finding for item in judged),
        trust_vector=_trust_vector(judged),
        boot_facts=boot_facts,
        facts=MappingProxyType(facts),
        facts_digest=decision.facts_digest,
        policy_ids=decision.policies,
        policy_digest=policies.digest,
        clock_state=_clock_state(quote, previous, judged),
    )


def _log_findings(log: ReplayedLog | BootLogRefused | None, facts: BootFacts | None) -> Iterator[_Judged]:
    if log is None:
        yield _Judged(Finding("bootlog-missing", "no boot log of this boot is known"), "executables")
    elif isinstance(log, BootLogRefused):
        yield _Judged(Finding(log.code, log.detail), "executables")
    if facts is None:
        return
    if facts.secure_boot is False:
        yield _Judged(
            Finding("secure-boot-off", "the firmware did not enforce Secure Boot", "on", "off"), "configuration"
        )
    for finding in facts.findings:
        yield _Judged(finding, "executables" if finding.id.startswith(("boot-", "uki-")) else "configuration")


def _pcr_findings(quote: VerifiedQuote, reference: ReferenceSet) -> Iterator[_Judged]:
    for algorithm, bank in quote.pcrs.items():
        expected = reference.pcrs.get(algorithm, {})
        for pcr, value in bank.items():
            finding = _compare(algorithm, pcr, value, expected, reference)
            if finding is not None:
                yield _Judged(finding, _CLAIM_OF_PCR.get(pcr, "executables"))
    for algorithm, listed in reference.pcrs.items():
        for pcr in sorted(listed.keys() - quote.pcrs.get(algorithm, {}).keys()):
            detail = f"PCR {pcr} ({algorithm.label}) is in the reference set, and was not quoted"
            yield _Judged(Finding("pcr-not-quoted", detail), _CLAIM_OF_PCR.get(pcr, "executables"))


def _compare(
    algorithm: HashAlgorithm,
    pcr: int,
    value: bytes,
    expected: Mapping[int, frozenset[bytes]],
    reference: ReferenceSet,
) -> Finding | None:
    if pcr in expected:
        if value in expected[pcr]:
            return None
        allowed = " or ".join(sorted(alternative.hex() for alternative in expected[pcr]))
        detail = f"PCR {pcr} ({algorithm.label}) is not what {reference.name} version {reference.version} gives"
        return Finding("pcr-unexpected", detail, allowed, value.hex())
    if pcr in reference.ignored:
        return None
    detail = f"PCR {pcr} ({algorithm.label}) was quoted, and the reference set neither lists nor ignores it"
    return Finding("pcr-unlisted", detail, None, value.hex())


def _reference_findings(reference: ReferenceSet, now: datetime) -> Iterator[_Judged]:
    if now >= reference.expires:
        detail = f"the reference set of {reference.name} expired at {reference.expires:%Y-%m-%dT%H:%M:%SZ}"
        yield _Judged(Finding("reference-expired", detail), "executables")


def _facts(
    node: str, judged: Iterable[_Judged], boot_facts: BootFacts | None, reference: ReferenceSet, now: datetime
) -> dict[str, Fact]:
    found = [(item.finding.id, item.tier) for item in judged]
    return {
        "issuer": _ISSUER,
        "subject": node,
        "pcrs_match": not any(identifier.startswith("pcr-") for identifier, _ in found),
        "log_replays": boot_facts is not None,
        "secure_boot": boot_facts is not None and boot_facts.secure_boot is True,
        "clock_ok": not any(identifier in _CLOCK for identifier, _ in found),
        "reference_version": reference.version,
        "reference_age_days": max((now - reference.issued).days, 0),
        "contradictions": sum(tier == _CONTRAINDICATED for _, tier in found),
        "warnings": sum(tier == _WARNING for _, tier in found),
    }


def _clock_state(quote: VerifiedQuote, previous: ClockState | None, judged: Iterable[_Judged]) -> ClockState:
    """What went backwards does not become the new measure: else the second round after it would be a good one."""
    if previous is not None and any(item.finding.id in _CLOCK for item in judged):
        return previous
    return next_clock_state(quote, previous)


def _trust_vector(judged: Iterable[_Judged]) -> Mapping[str, int]:
    vector = {claim: _AFFIRMING if claim in _JUDGED else 0 for claim in _CLAIMS}
    for item in judged:
        vector[item.claim] = max(vector[item.claim], item.tier)
    return MappingProxyType(vector)
