"""What a boot is worth: the part of an appraisal that boot log, PCR values and reference set decide alone.

Nothing of a node, a round or the time is in it, so it can be kept for all nodes that boot the same.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Final

from umec_attest.appraisal.stages import difference, measured
from umec_attest.appraisal.tiers import CLAIM_OF_PCR, JudgedFinding
from umec_attest.bootlog.facts import BootFacts, extract_facts
from umec_attest.bootlog.findings import Finding
from umec_attest.bootlog.quirks import EXCUSABLE_IN_FORM
from umec_attest.bootlog.replay import ReplayedLog
from umec_attest.digests import without_pcr
from umec_attest.errors import BootLogRefused, BootLogReplayMismatch
from umec_attest.ima import IMA_PCR
from umec_attest.quote import VerifiedQuote
from umec_attest.reference import ReferenceSet, match_model
from umec_attest.starts.entry import STARTS_PCR
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["AppraisalCache", "BootJudged", "allowed_forms", "judge_boot", "of_boot"]

REMEMBERED: Final = 1024
"""Boots that are kept, at some 10 KB: a fleet has one for each image on each board, with its firmware settings."""

_SHOWN: Final = 8
"""Values that a finding shows of those that a PCR may have: each node keeps its findings."""
_CLAIMS: Final = {"boot": "executables", "uki": "executables", "grub": "executables"} | dict.fromkeys(
    ("crtm", "hcrtm", "firmware"), "hardware"
)
"""What findings of the log are about, by how their ids begin; all others are about how the firmware is set."""

_Values = Mapping[HashAlgorithm, Mapping[int, bytes]]


@dataclass(frozen=True, slots=True)
class BootJudged:
    """A boot judged against a reference set. Only `judge_boot` makes one.

    `facts` is None where no log replayed; `model` is the firmware build of the reference set that the values are of
    (None: of none, or the set names none); `pcrs` and `reference_sha256` say for which quotes and which set it holds.
    """

    facts: BootFacts | None
    findings: tuple[JudgedFinding, ...]
    model: str | None
    pcrs: _Values
    reference_sha256: str

    def holds_for(self, quote: VerifiedQuote, reference: ReferenceSet) -> bool:
        """Tell whether this is what judging the boot of that quote against that set would give."""
        return self.reference_sha256 == reference.sha256 and self.pcrs == _judged_values(quote, reference)


class AppraisalCache:
    """Boots that were judged, so that a node that did not reboot costs neither replay nor extraction nor comparison.

    A steady round, in which `log_sha256` (hex) covers all logs that are replayed:

        boot = cache.get(log_sha256, quote, reference)
        if boot is None:
            log = …  # verify_boot_log(parse_boot_log(content, allow=allowed_forms(quote, reference)), quote)
                     # or the BootLogRefused that it raised
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
        key = _key(log_sha256, _judged_values(quote, reference), reference.sha256)
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

    `log` is this boot's log, replayed against `of_boot` of this very quote, or why it was refused, or None if there is
    none. Nothing raises: whatever is wrong is a finding.
    """
    quote = of_boot(quote, reference)
    if isinstance(log, ReplayedLog) and log.pcrs != quote.pcrs.get(log.algorithm):
        log = BootLogReplayMismatch("the log was replayed against another quote")
    values = _judged_values(quote, reference)
    facts = extract_facts(log) if isinstance(log, ReplayedLog) else None
    model = match_model(reference.models, values)
    findings = (
        *(_excuse(item, model, reference) for item in _log_findings(log, facts)),
        *_pcr_findings(values, reference, model, log if isinstance(log, ReplayedLog) else None),
    )
    return BootJudged(facts, findings, model, values, reference.sha256)


def allowed_forms(quote: VerifiedQuote, reference: ReferenceSet) -> frozenset[str]:
    """Return what `parse_boot_log` may let pass: irregular forms that are excused for the firmware of this quote."""
    model = match_model(reference.models, quote.pcrs)
    return frozenset() if model is None else EXCUSABLE_IN_FORM & reference.models[model].excused.keys()


def of_boot(quote: VerifiedQuote, reference: ReferenceSet) -> VerifiedQuote:
    """Return a quote without the register of starts, where the set says so: they have a log of their own."""
    if not reference.starts:
        return quote
    return replace(quote, pcrs=without_pcr(quote.pcrs, STARTS_PCR))


def _judged_values(quote: VerifiedQuote, reference: ReferenceSet) -> _Values:
    """What a boot decides: IMA's PCR grows with every file; its list is judged where the set says what may run."""
    values = of_boot(quote, reference).pcrs
    return values if reference.runtime is None else without_pcr(values, IMA_PCR)


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
        yield JudgedFinding(finding, _CLAIMS.get(finding.id.partition("-")[0], "configuration"))


def _excuse(item: JudgedFinding, model: str | None, reference: ReferenceSet) -> JudgedFinding:
    """A quirk that the reference set excuses for this model is told all the same, with the reason."""
    finding = item.finding
    reason = None if model is None else reference.models[model].excused.get(finding.id)
    if reason is None:
        return item
    detail = f"{finding.id} on {model}: {reason} ({finding.detail})"
    return JudgedFinding(Finding("excused", detail, finding.expected, finding.found), item.claim)


def _pcr_findings(
    values: _Values, reference: ReferenceSet, model: str | None, log: ReplayedLog | None
) -> Iterator[JudgedFinding]:
    expected, wrong = _expected(reference, model), set()
    for algorithm, bank in values.items():
        for pcr, value in bank.items():
            finding = _compare(algorithm, pcr, value, expected.get(algorithm, {}).get(pcr), reference)
            if finding is not None:
                wrong.add((algorithm, pcr))
                told = _with_stages(finding, algorithm, pcr, log, reference)
                yield JudgedFinding(told, CLAIM_OF_PCR.get(pcr, "executables"))
    for algorithm, listed in expected.items():
        for pcr in sorted(listed.keys() - values.get(algorithm, {}).keys()):
            wrong.add((algorithm, pcr))
            detail = f"PCR {pcr} ({algorithm.label}) is in the reference set, and was not quoted"
            yield JudgedFinding(Finding("pcr-not-quoted", detail), CLAIM_OF_PCR.get(pcr, "executables"))
    firmware = {(algorithm, pcr) for each in reference.models.values() for algorithm, pcr in each.shape}
    if firmware and model is None and not wrong & firmware:
        listed_pcrs = ", ".join(sorted({f"PCR {pcr}" for _, pcr in firmware}))
        detail = f"the values of {listed_pcrs} are known, but not of one firmware build"
        yield JudgedFinding(Finding("pcr-model-mixed", detail, " or ".join(reference.models)), "hardware")


def _expected(reference: ReferenceSet, model: str | None) -> dict[HashAlgorithm, dict[int, dict[bytes, list[str]]]]:
    """Return each value that a PCR may have, with the models whose it is; of all models where none is matched."""
    expected: dict[HashAlgorithm, dict[int, dict[bytes, list[str]]]] = {
        algorithm: {pcr: {value: [] for value in allowed} for pcr, allowed in bank.items()}
        for algorithm, bank in reference.pcrs.items()
    }
    for name, each in reference.models.items():
        if model in {None, name}:
            for algorithm, bank in each.pcrs.items():
                for pcr, allowed in bank.items():
                    known = expected.setdefault(algorithm, {}).setdefault(pcr, {})
                    for value in allowed:
                        known.setdefault(value, []).append(name)
    return expected


def _compare(
    algorithm: HashAlgorithm,
    pcr: int,
    value: bytes,
    expected: Mapping[bytes, Sequence[str]] | None,
    reference: ReferenceSet,
) -> Finding | None:
    if expected is not None:
        if value in expected:
            return None
        named = sorted(_named(alternative, names) for alternative, names in expected.items())
        more = [] if len(named) <= _SHOWN else [f"{len(named) - _SHOWN} more"]
        allowed = " or ".join([*named[:_SHOWN], *more])
        detail = f"PCR {pcr} ({algorithm.label}) is not what {reference.name} version {reference.version} gives"
        return Finding("pcr-unexpected", detail, allowed, value.hex())
    if pcr in reference.ignored:
        return None
    detail = f"PCR {pcr} ({algorithm.label}) was quoted, and the reference set neither lists nor ignores it"
    return Finding("pcr-unlisted", detail, None, value.hex())


def _with_stages(
    finding: Finding, algorithm: HashAlgorithm, pcr: int, log: ReplayedLog | None, reference: ReferenceSet
) -> Finding:
    """Say which part of the boot is another one, where the set knows them and the log replays."""
    expected = reference.stages.get(pcr)
    if finding.id != "pcr-unexpected" or expected is None or log is None or algorithm is not HashAlgorithm.SHA256:
        return finding
    found = difference(expected, measured(log, pcr))
    return replace(finding, detail=f"{finding.detail}: {found.text}", stages=found.changed)


def _named(value: bytes, models: Sequence[str]) -> str:
    return f"{value.hex()} ({', '.join(models)})" if models else value.hex()
