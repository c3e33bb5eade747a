"""What a log of starts is worth: replayed up to a quote, and each start compared with what the site decided.

1  a checkpoint is of this boot, or stands at the beginning of one
2  the replay reaches the quoted PCR 15; what was added after the quote waits. A TPM that slept went on where it was
   (TPM Resume), or its PCRs began anew (TPM Restart): its restartCount grew, and the replay tells which of both it was
3  each entry that is proven is well-formed, of this boot, and has the number of its place
4  each start is one that the site decided, or a finding
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from umec_attest.bootlog.findings import Finding
from umec_attest.errors import StartLogInvalid, StartLogMismatch, StartLogOutdated
from umec_attest.quote import UnanchoredQuote, VerifiedQuote
from umec_attest.starts.checkpoint import BEGINNING, StartCheckpoint
from umec_attest.starts.decisions import DecisionRules, decision_finding
from umec_attest.starts.entry import MAX_ENTRY, STARTS_PCR, StartEntry, extended, parse_start
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["StartsJudged", "count_starts", "judge_starts", "quoted_starts"]

MAX_FINDINGS: Final = 32
"""Findings of one boot that are told; who starts one application without a decision may start many."""


@dataclass(frozen=True, slots=True)
class StartsJudged:
    """What was found in the starts that a quote proves.

    `findings` are those of the whole boot; `checkpoint` is what to keep for the next round; `entries` is how many were
    judged now. A part of a log that stops before the quote is not `whole`: only what follows proves it.
    """

    findings: tuple[Finding, ...]
    checkpoint: StartCheckpoint
    entries: int
    whole: bool = True


def judge_starts(
    data: bytes,
    quote: VerifiedQuote,
    checkpoint: StartCheckpoint | None,
    *,
    node: str,
    rules: DecisionRules,
    asked_at: datetime,
    now: datetime,
    more: bool = False,
) -> StartsJudged:
    """Judge the log of `node` from the entry after `checkpoint` on (None: from the first one).

    `asked_at` is when the challenge of the quote was made; `more`: the log goes on, and may stop short of the quote.
    Errors: `StartLogOutdated`, `StartLogMismatch`, `StartLogInvalid`.
    """
    quoted, before = quoted_starts(quote), StartCheckpoint() if checkpoint is None else checkpoint
    _check_checkpoint(before, quote)  # 1
    value, lines = _walk(data, before.pcr, quoted)  # 2
    if value != quoted and not more:
        raise _mismatch(before, quote)
    entries = [
        _entry(line, number, quote) for number, line in enumerate(lines, before.entries)  # 3
    ]  # fmt: skip
    found = (decision_finding(entry, node=node, rules=rules, since=before.asked_at, now=now) for entry in entries)  # 4
    findings = _told((*before.findings, *(finding for finding in found if finding is not None)))
    whole = value == quoted
    kept = StartCheckpoint(
        reset_count=quote.clock_info.reset_count,
        restart_count=quote.clock_info.restart_count if whole or before.entries == 0 else before.restart_count,
        entries=before.entries + len(entries),
        pcr=value,
        asked_at=asked_at if whole else before.asked_at,
        findings=findings,
    )
    return StartsJudged(findings, kept, len(entries), whole=whole)


def count_starts(data: bytes, quote: VerifiedQuote | UnanchoredQuote) -> int:
    """Return how many starts a whole log has that ends where the quote was made; nothing is said of who decided them.

    Errors: `StartLogMismatch`, `StartLogInvalid`.
    """
    quoted = quoted_starts(quote)
    value, lines = _walk(data, BEGINNING, quoted)
    if value != quoted or len(b"".join(lines)) + len(lines) != len(data):
        raise StartLogMismatch(f"the log of starts does not give the quoted PCR {STARTS_PCR}, and end there")
    return len([_entry(line, number, quote) for number, line in enumerate(lines)])


def quoted_starts(quote: VerifiedQuote | UnanchoredQuote) -> bytes | None:
    """Return the quoted PCR 15, which is no log's where it was not quoted (None)."""
    return quote.pcrs.get(HashAlgorithm.SHA256, {}).get(STARTS_PCR)


def _check_checkpoint(checkpoint: StartCheckpoint, quote: VerifiedQuote) -> None:
    """1. What was started in another boot says nothing about this one."""
    if checkpoint.entries > 0 and checkpoint.reset_count != quote.clock_info.reset_count:
        raise StartLogOutdated("the node booted since: the log of starts is needed from its beginning")


def _walk(data: bytes, start: bytes, quoted: bytes | None) -> tuple[bytes, list[bytes]]:
    """2. Return the PCR that the lines give up to the quoted one, and these lines."""
    value, at, lines = start, 0, list[bytes]()
    while value != quoted and at < len(data):
        end = data.find(b"\n", at, at + MAX_ENTRY + 1)
        if end < 0:
            raise StartLogInvalid(f"an entry of the log has at most {MAX_ENTRY} bytes and ends with a line break")
        lines.append(data[at:end])
        value, at = extended(value, lines[-1]), end + 1
    return value, lines


def _mismatch(checkpoint: StartCheckpoint, quote: VerifiedQuote) -> StartLogMismatch | StartLogOutdated:
    """2. From the beginning on, a log has no excuse."""
    if checkpoint.entries > 0 and checkpoint.restart_count != quote.clock_info.restart_count:
        return StartLogOutdated("the TPM restarted since: the log of starts is needed from its beginning")
    return StartLogMismatch(f"the log from start {checkpoint.entries} on does not give the quoted PCR {STARTS_PCR}")


def _entry(line: bytes, number: int, quote: VerifiedQuote | UnanchoredQuote) -> StartEntry:
    """3. Somebody else may extend the PCR with anything, and tell of it."""
    entry = parse_start(line)
    if (entry.number, entry.boot) != (number, quote.clock_info.reset_count):
        raise StartLogInvalid(f"start {number} of boot {quote.clock_info.reset_count} says that it is another one")
    return entry


def _told(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(dict.fromkeys(findings))[:MAX_FINDINGS]
