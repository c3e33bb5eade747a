"""What a boot is worth: the part of an appraisal that boot log, PCR values and reference set decide alone.

Nothing of a node, a round or the time is in it, so it can be kept for all nodes that boot the same.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Final

from umec_attest.appraisal.tiers import CLAIM_OF_PCR, JudgedFinding
from umec_attest.bootlog.facts import BootFacts, extract_facts
from umec_attest.bootlog.findings import Finding
from umec_attest.bootlog.replay import ReplayedLog
from umec_attest.errors import BootLogRefused, BootLogReplayMismatch
from umec_attest.quote import VerifiedQuote
from umec_attest.reference import ReferenceSet
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["AppraisalCache", "BootJudged", "judge_boot"]

REMEMBERED: Final = 1024
"""Boots that are kept, at some 10 KB: a fleet has one for each image on each board, with its firmware settings."""

_Values = Mapping[HashAlgorithm, Mapping[int, bytes]]


@dataclass(frozen=True, slots=True)
class BootJudged:
    """A boot judged against a reference set. Only `judge_boot` makes one.

    `facts` is None where no log replayed; `pcrs` and `reference_sha256` say for which quotes and which set it holds.
    """

    facts: BootFacts | None
    findings: tuple[JudgedFinding, ...]
    pcrs: _Values
    reference_sha256: str

    def holds_for(self, quote: VerifiedQuote, reference: ReferenceSet) -> bool:
        """Tell whether this is what judging the boot of that quote against that set would give."""
        return self.reference_sha256 == reference.sha256 and self.pcrs == _judged_values(quote)


class AppraisalCache:
    """Boots that were judged, so that a node that did not reboot costs neither replay nor extraction nor comparison.

    A steady round, in which `log_sha256` (hex) is that of the log that this boot sent:

        boot = cache.get(log_sha256, quote, reference)
        if boot is None:
            log = …  # verify_boot_log(parse_boot_log(content), quote), or the BootLogRefused that it raised
            boot = cache.put(log_sha256, judge_boot(quote, log, reference))
        appraise(…, quote=quote, log=boot, reference=reference, …)

    The key holds everything that a judged boot depends on: the log, the quoted values, the reference set. What is of
    the node or of the moment (clock, expiry, runtime measurements, the policies' decision) is appraised every time; the
    decision has a cache of its own in `PolicySet`. Safe to share between threads.
    """

    __slots__ = ("_known", "_lock", "_size")

    def __init__(self, size: int = REMEMBERED) -> None:
        self._known: OrderedDict[Hashable, BootJudged] = OrderedDict()
        self._lock = Lock()
        self._size = size

    def get(self, log_sha256: str, quote: VerifiedQuote, reference: ReferenceSet) -> BootJudged | None:
        """Return the judged boot of that log for these quoted values and this reference set, or None."""
        key = _key(log_sha256, _judged_values(quote), reference.sha256)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
            return known

    def put(self, log_sha256: str, boot: BootJudged) -> BootJudged:
        """Keep a judged boot and return it; the one that was of no use for longest gives way."""
        with self._lock:
            self._known[_key(log_sha256, boot.pcrs, boot.reference_sha256)] = boot
            if len(self._known) > self._size:
                self._known.popitem(last=False)
        return boot


def judge_boot(quote: VerifiedQuote, log: ReplayedLog | BootLogRefused | None, reference: ReferenceSet) -> BootJudged:
    """Judge the boot of a quote.

    `log` is this boot's log, replayed against this very quote, or why it was refused, or None if there is none. Nothing
    raises: whatever is wrong is a finding.
    """
    if isinstance(log, ReplayedLog) and log.pcrs != quote.pcrs.get(log.algorithm):
        log = BootLogReplayMismatch("the log was replayed against another quote")
    facts = extract_facts(log) if isinstance(log, ReplayedLog) else None
    findings = (*_log_findings(log, facts), *_pcr_findings(quote, reference))
    return BootJudged(facts, findings, _judged_values(quote), reference.sha256)


def _judged_values(quote: VerifiedQuote) -> _Values:
    return quote.pcrs


def _key(log_sha256: str, values: _Values, reference_sha256: str) -> Hashable:
    return log_sha256, reference_sha256, tuple((bank, tuple(pcrs.items())) for bank, pcrs in values.items())


def _log_findings(log: ReplayedLog | BootLogRefused | None, facts: BootFacts | None) -> Iterator[JudgedFinding]:
    if log is None:
        yield JudgedFinding(Finding("bootlog-missing", "no boot log of this boot is known"), "executables")
    elif isinstance(log, BootLogRefused):
        yield JudgedFinding(Finding(log.code, log.detail), "executables")
    if facts is None:
        return
    if facts.secure_boot is False:
        yield JudgedFinding(
            Finding("secure-boot-off", "the firmware did not enforce Secure Boot", "on", "off"), "configuration"
        )
    for finding in facts.findings:
        yield JudgedFinding(finding, "executables" if finding.id.startswith(("boot-", "uki-")) else "configuration")


def _pcr_findings(quote: VerifiedQuote, reference: ReferenceSet) -> Iterator[JudgedFinding]:
    for algorithm, bank in quote.pcrs.items():
        expected = reference.pcrs.get(algorithm, {})
        for pcr, value in bank.items():
            finding = _compare(algorithm, pcr, value, expected, reference)
            if finding is not None:
                yield JudgedFinding(finding, CLAIM_OF_PCR.get(pcr, "executables"))
    for algorithm, listed in reference.pcrs.items():
        for pcr in sorted(listed.keys() - quote.pcrs.get(algorithm, {}).keys()):
            detail = f"PCR {pcr} ({algorithm.label}) is in the reference set, and was not quoted"
            yield JudgedFinding(Finding("pcr-not-quoted", detail), CLAIM_OF_PCR.get(pcr, "executables"))


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
