"""What a list of runtime measurements is worth: replayed up to a quote, and compared with a runtime policy.

1  a checkpoint is of this boot, of this policy and of the one quoted bank, or the list is judged from its start
2  the list has an entry: an empty one proves nothing
3  each entry is well-formed and its template hash is that of its data
4  the replay reaches the quoted PCR 10, in every bank that was quoted; what was added after the quote waits
5  boot_aggregate is the first entry, over the quoted PCRs, and there is no other one but by kexec
6  each entry is what the policy allows, or a finding
7  something ran: boot_aggregate alone is the list of a kernel without a policy, and so is good for none
8  what the policy requires is in the part with which the list begins
"""

import functools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from umec_attest.bootlog.findings import Finding
from umec_attest.errors import ImaCheckpointOutdated, ImaEmpty, ImaRefused, ImaReplayMismatch
from umec_attest.ima.checkpoint import ImaCheckpoint
from umec_attest.ima.entries import IMA_PCR, ImaEntry, parse_entry, raw_entries
from umec_attest.ima.lists import check_aggregate, first_entry, quoted_banks, replay_ima
from umec_attest.ima.policy import RuntimePolicy
from umec_attest.ima.seen import SeenByFleet, SeenEntries
from umec_attest.ima.text import binary_list, binary_of_text, entry_of_line, is_text
from umec_attest.ima.walk import Walked, walk
from umec_attest.quote import VerifiedQuote
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["RuntimeJudged", "judge_runtime"]

MAX_FINDINGS: Final = 16
"""Findings with one id that are told one by one; a program of no list comes with its libraries."""


@dataclass(frozen=True, slots=True)
class RuntimeJudged:
    """What was found in the entries that a quote proves.

    `findings` are those of the whole boot; `checkpoint` is what to keep for the next round; `entries` is how many were
    judged now. A part of a list that stops before the quote is not `whole`: only what follows proves it.
    """

    findings: tuple[Finding, ...]
    checkpoint: ImaCheckpoint
    entries: int
    whole: bool = True


def judge_runtime(
    data: bytes,
    quote: VerifiedQuote,
    checkpoint: ImaCheckpoint | None,
    policy: RuntimePolicy,
    *,
    more: bool = False,
    seen: SeenByFleet | None = None,
) -> RuntimeJudged:
    """Judge a list (binary or text) from the entry after `checkpoint` on (None: from the first one).

    `more`: the list goes on, and may stop short of the quote. `seen` remembers good entries for the whole fleet.
    Errors: `ImaCheckpointOutdated`, `ImaInvalid`, `ImaEmpty`, `ImaTemplateUnknown`, `ImaReplayMismatch`,
    `ImaAggregateMismatch`.
    """
    algorithm, quoted = next(iter(quoted_banks(quote).items()))
    before, start, earlier = 0, bytes(algorithm.digest_size), tuple[Finding, ...]()
    if checkpoint is not None:
        _check_checkpoint(checkpoint, quote, policy)  # 1
        before, start, earlier = checkpoint.entries, checkpoint.pcr, checkpoint.findings
    known = (SeenByFleet() if seen is None else seen).of(policy.sha256, algorithm)
    walked, proven = _walk(data, start, quoted, policy=policy, algorithm=algorithm, seen=known)  # 3, 6
    if walked.pcr != quoted and not more:  # 4
        raise ImaReplayMismatch(f"the list from entry {before} on does not give the quoted PCR {IMA_PCR}")
    if checkpoint is None:
        _check_start(proven, quote)  # 2, 4, 5
    findings = [
        _kexec_finding(strange.entry, quote, policy) if strange.finding is None else strange.finding  # 5, 6
        for strange in walked.strange
        if strange.number + before > 0
    ]
    if walked.pcr == quoted and before + walked.entries == 1 and not earlier:  # 7
        findings.append(Finding("ima-nothing-measured", "boot_aggregate alone: the kernel measured nothing that ran"))
    if checkpoint is None:
        findings += _missing(proven, policy)  # 8
    told = tuple(_told((*earlier, *(finding for finding in findings if finding is not None))))
    kept = ImaCheckpoint(
        reset_count=quote.clock_info.reset_count,
        entries=before + walked.entries,
        pcr=walked.pcr,
        policy_sha256=policy.sha256,
        findings=told,
        restart_count=quote.clock_info.restart_count,
    )
    return RuntimeJudged(told, kept, walked.entries, whole=walked.pcr == quoted)


def _walk(
    data: bytes, start: bytes, quoted: bytes, *, policy: RuntimePolicy, algorithm: HashAlgorithm, seen: SeenEntries
) -> tuple[Walked, bytes]:
    """3, 6. Walk a list in the form that it has; returns the part that it went through as well.

    A text that is refused line by line is turned into the binary form as a whole, and refused there: for its first
    fault.
    """
    replay = functools.partial(walk, start=start, quoted=quoted, policy=policy, algorithm=algorithm, seen=seen)
    if is_text(data):
        try:
            walked = replay(list(BytesIO(data)), entry_of_line)
            if walked.size < len(data):
                raw_entries(binary_of_text(data[walked.size :]))  # what waits for the next quote has to be a list, too
        except ImaRefused:
            data = binary_of_text(data)
        else:
            return walked, data[: walked.size]
    walked = replay(raw_entries(data), bytes)
    return walked, data[: walked.size]


def _check_checkpoint(checkpoint: ImaCheckpoint, quote: VerifiedQuote, policy: RuntimePolicy) -> None:
    """1. What was judged in another boot or by another policy says nothing about this one."""
    info = quote.clock_info
    if (checkpoint.reset_count, checkpoint.restart_count) != (info.reset_count, info.restart_count):
        raise ImaCheckpointOutdated("the node booted since: the list is needed from its start")
    if checkpoint.policy_sha256 != policy.sha256:
        raise ImaCheckpointOutdated("another policy says what may run: the list is needed from its start")
    if [algorithm.digest_size for algorithm in quoted_banks(quote)] != [len(checkpoint.pcr)]:
        raise ImaCheckpointOutdated("other banks are quoted: the list is needed from its start")


def _check_start(proven: bytes, quote: VerifiedQuote) -> None:
    """2, 4, 5. A list begins on this boot; what the first bank proves, the others have to prove as well."""
    if not proven:
        raise ImaEmpty("no entry: the kernel measured nothing since its boot")
    for algorithm, quoted in list(quoted_banks(quote).items())[1:]:
        if replay_ima(map(parse_entry, raw_entries(binary_list(proven))), algorithm) != quoted:
            raise ImaReplayMismatch(f"the list does not give the quoted PCR {IMA_PCR} ({algorithm.label})")
    check_aggregate(first_entry(proven), quote.pcrs)


def _missing(proven: bytes, policy: RuntimePolicy) -> Iterator[Finding]:
    """8. That a kernel was given its own policy, say, which comes before all that a node sends evidence by."""
    listed = binary_list(proven) if policy.required else b""
    for name in policy.required:
        if not any(parse_entry(raw).name == name[:-1] for raw in raw_entries(listed)):
            path = name.rstrip(b"\0").decode()
            yield Finding("ima-required-missing", f"{path} has to be in the list, and nothing read it")


def _kexec_finding(entry: ImaEntry, quote: VerifiedQuote, policy: RuntimePolicy) -> Finding | None:
    """5. A second boot_aggregate: a kernel was started by another one, past firmware and boot loader."""
    if policy.kexec == "refuse":
        return Finding("ima-kexec", "another kernel was started by kexec: boot_aggregate is there again")
    check_aggregate(entry, quote.pcrs)
    return None


def _told(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Tell the findings, of each id so many."""
    told: Counter[str] = Counter()
    for finding in findings:
        told[finding.id] += 1
        if told[finding.id] <= MAX_FINDINGS:
            yield finding
        elif told[finding.id] == MAX_FINDINGS + 1:
            yield Finding(finding.id, "and more of them")
