"""Evidence that lies in a folder, judged without a service: by anybody who has the AK, the nonce and the references.

What is expected comes from the caller alone. The folder's own `ak.pub` and `nonce.bin` serve `check_consistency` only,
which proves that the pieces belong together, and nothing about whose they are.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from umec_attest.appraisal import Appraisal, allowed_forms, appraise, of_boot, outdated_finding
from umec_attest.bootlog import ReplayedLog, UserspaceRecord, parse_boot_log, parse_userspace_log, verify_boot_log
from umec_attest.bootlog.coverage import check_coverage
from umec_attest.digests import PcrValues, parse_pcr_values, without_pcr
from umec_attest.errors import (
    AttestError,
    BootLogRefused,
    BootLogReplayMismatch,
    ImaRefused,
    ImaReplayMismatch,
    PcrValuesInvalid,
    QuoteSignerMismatch,
    ReferenceInvalid,
    StartLogRefused,
)
from umec_attest.ima import IMA_PCR, RuntimeJudged, judge_runtime, parse_ima, verify_ima
from umec_attest.quote import UnanchoredQuote, VerifiedQuote, verify_quote, verify_quote_unanchored
from umec_attest.reference import FiledSet, ReferenceSet, Versions, versions_of
from umec_attest.starts.checkpoint import BEGINNING
from umec_attest.starts.decisions import NO_DECISIONS, DecisionRules
from umec_attest.starts.entry import STARTS_PCR
from umec_attest.starts.judge import StartsJudged, count_starts, judge_starts, quoted_starts
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.attest import Quoted, parse_attest
from umec_attest.tpm.names import Hierarchy, signer_name
from umec_attest.tpm.pcr import PcrSelection
from umec_attest.tpm.public import Public, parse_public, parse_tpm2b_public
from umec_policies import PolicySet

__all__ = [
    "ConsistentEvidence",
    "EvidenceIncomplete",
    "EvidencePieces",
    "check_consistency",
    "judge_evidence",
    "parse_key",
]

MAX_PCRS_SIZE: Final = 64 * 1024
"""All banks of 24 values, as JSON, are 12 KB."""


class EvidenceIncomplete(AttestError):
    """A piece without which nothing is proven is missing."""

    code = "evidence-incomplete"


@dataclass(frozen=True, slots=True)
class EvidencePieces:
    """The files of an evidence folder, as bytes; what is not there is None.

    `userspace` is systemd's log, which goes on where the boot log ends, `starts` that of applications that were
    started.
    """

    quote: bytes
    signature: bytes
    pcrs: bytes
    ak: bytes | None = None
    ak_parent: bytes | None = None
    nonce: bytes | None = None
    boot_log: bytes | None = None
    userspace: bytes | None = None
    ima: bytes | None = None
    starts: bytes | None = None


@dataclass(frozen=True, slots=True)
class ConsistentEvidence:
    """Pieces that fit each other. Only `check_consistency` makes one.

    `boot_events`, `ima_entries` and `starts` are how many there are, None without a list. `boot_bytes_uncovered` are
    those of the events' data that no digest covers: what they say is proven by nothing.
    """

    quote: UnanchoredQuote
    log: ReplayedLog | None
    checked: tuple[str, ...]
    boot_events: int | None = None
    boot_bytes_uncovered: int | None = None
    ima_entries: int | None = None
    starts: int | None = None


def parse_key(data: bytes) -> Public:
    """Parse a TPM2B_PUBLIC or a TPMT_PUBLIC; `TpmInvalid` if it is neither."""
    if len(data) > 2 and int.from_bytes(data[:2], "big") == len(data) - 2:
        return parse_tpm2b_public(data)
    return parse_public(data)


def check_consistency(pieces: EvidencePieces) -> ConsistentEvidence:
    """Check that quote, signature, PCR values and logs fit each other, under the folder's own key and nonce.

    Errors: those of `verify_quote`, `verify_boot_log`, `check_coverage` and `verify_ima`; `EvidenceIncomplete` without
    `ak.pub` or `nonce.bin`.
    """
    if pieces.ak is None or pieces.nonce is None:
        raise EvidenceIncomplete("ak.pub and nonce.bin are needed")
    ak = parse_key(pieces.ak)
    quote = verify_quote_unanchored(
        attest=pieces.quote, signature=pieces.signature, ak=ak, nonce=pieces.nonce, pcrs=_pcrs(pieces.pcrs)
    )
    checked = ["structure", "nonce", "signature", "pcr-digest"]
    if pieces.ak_parent is not None:
        _check_parent(quote, ak, parse_key(pieces.ak_parent))
        checked.append("signer")
    log, events, uncovered, entries, started = None, None, None, None, None
    if pieces.boot_log is not None:
        raw = parse_boot_log(pieces.boot_log)
        measured = quote if pieces.starts is None else replace(quote, pcrs=without_pcr(quote.pcrs, STARTS_PCR))
        log, events = verify_boot_log(raw, measured, _records(pieces.userspace)), len(raw.events)
        if log.findings:  # a quirk may be excused for a model, and here is none
            raise BootLogReplayMismatch("; ".join(finding.detail for finding in log.findings))
        uncovered = sum(len(event.data) for event in raw.events) - check_coverage(log)
        checked += ["boot-log"] if pieces.userspace is None else ["boot-log", "userspace-log"]
    elif pieces.userspace is not None:
        raise EvidenceIncomplete("userspace.log goes on where bootlog.bin ends, which is not there")
    if pieces.ima is not None:
        entries = _check_list(pieces.ima, quote)
        checked.append("ima")
    if pieces.starts is not None:
        started = count_starts(pieces.starts, quote)
        checked.append("starts")
    return ConsistentEvidence(quote, log, tuple(checked), events, uncovered, entries, started)


def _check_list(ima: bytes, quote: UnanchoredQuote) -> int:
    """Return the entries of a list that ends where the quote was made: in a folder nothing comes after it."""
    entries = parse_ima(ima)
    proven = len(verify_ima(entries, quote))
    if proven != len(entries):
        raise ImaReplayMismatch(
            f"the list goes on after the quoted PCR 10: {len(entries) - proven} entries are unproven"
        )
    return proven


def judge_evidence(
    pieces: EvidencePieces,
    *,
    node: str,
    ak: Public,
    ak_parent: Public | None,
    nonce: bytes,
    reference: ReferenceSet,
    policies: PolicySet,
    now: datetime,
    older: Sequence[ReferenceSet] = (),
    decisions: DecisionRules = NO_DECISIONS,
) -> Appraisal:
    """Verify and appraise a folder against what the caller knows; `decisions` says whose about starts count.

    Every PCR of the reference set must be quoted; with a runtime policy in it PCR 10, too, and the list of what ran has
    to be there; PCR 15 of a host, and the log of starts where there were some. Without `ak_parent` the folder's own
    is taken, else the AK must be a primary key of the endorsement hierarchy: the AK is known, and never leaves its
    parent, so a wrong parent only makes the check fail. `older` are sets of the same image: one whose PCR values
    these are is what judges, for as long as the grace of all newer ones lasts. Errors: those of `verify_quote`,
    `EvidenceIncomplete` for what is missing, or is there and could not be judged, `ReferenceInvalid` for older sets
    that are none. A log or a list that does not hold is a finding.
    """
    pcrs, versions = _pcrs(pieces.pcrs), _versions(reference, older)
    reference = versions.match(pcrs, now)  # by what is claimed: all of it is checked against this one
    if pieces.boot_log is None:
        raise EvidenceIncomplete("bootlog.bin is needed: without it nobody knows what was measured")
    if reference.runtime is not None and pieces.ima is None:
        raise EvidenceIncomplete("ima.bin or ima.txt is needed: the reference set says what may run")
    if reference.runtime is None and pieces.ima is not None:
        raise EvidenceIncomplete("the reference set does not say what may run: nothing judges the list of what ran")
    if not reference.starts and pieces.starts is not None:
        raise EvidenceIncomplete(
            "the reference set does not say that starts are logged: nothing judges the log of them"
        )
    if ak_parent is None and pieces.ak_parent is not None:
        ak_parent = parse_key(pieces.ak_parent)
    quote = verify_quote(
        attest=pieces.quote,
        signature=pieces.signature,
        ak=ak,
        ak_parent=Hierarchy.ENDORSEMENT if ak_parent is None else ak_parent,
        nonce=nonce,
        selection=_expected_selection(pieces.quote, reference),
        pcrs=pcrs,
    )
    return appraise(
        node=node,
        quote=quote,
        log=_replay(pieces.boot_log, pieces.userspace, quote, reference),
        reference=reference,
        policies=policies,
        previous=None,
        now=now,
        runtime=_runtime(pieces.ima, quote, reference),
        starts=_starts(pieces.starts, quote, reference, node, decisions, now),
        version=outdated_finding(versions, quote, now),
    )


def _versions(newest: ReferenceSet, older: Sequence[ReferenceSet]) -> Versions:
    sets = sorted((newest, *older), key=lambda each: each.version, reverse=True)
    if sets[0] is not newest or {each.name for each in sets} != {newest.name}:
        raise ReferenceInvalid(
            f"what is older than version {newest.version} of {newest.name} is of another image, or newer"
        )
    if len({each.version for each in sets}) != len(sets):
        raise ReferenceInvalid("two sets have the same version")
    return versions_of([FiledSet(each) for each in sets])


def _replay(
    boot_log: bytes, userspace: bytes | None, quote: VerifiedQuote, reference: ReferenceSet
) -> ReplayedLog | BootLogRefused:
    try:
        raw = parse_boot_log(boot_log, allow=allowed_forms(quote, reference))
        return verify_boot_log(raw, of_boot(quote, reference), _records(userspace))
    except BootLogRefused as error:
        return error


def _records(userspace: bytes | None) -> tuple[UserspaceRecord, ...]:
    return () if userspace is None else parse_userspace_log(userspace)


def _runtime(listed: bytes | None, quote: VerifiedQuote, reference: ReferenceSet) -> RuntimeJudged | ImaRefused | None:
    if listed is None or reference.runtime is None:
        return None
    try:
        return judge_runtime(listed, quote, None, reference.runtime)
    except ImaRefused as error:
        return error


def _starts(
    log: bytes | None,
    quote: VerifiedQuote,
    reference: ReferenceSet,
    node: str,
    decisions: DecisionRules,
    now: datetime,
) -> StartsJudged | StartLogRefused | None:
    """Judge a whole log. When it was asked for, nobody knows here: of a decision's time the node's clock has to do."""
    if not reference.starts:
        return None
    if log is None and quoted_starts(quote) != BEGINNING:
        return None
    try:
        return judge_starts(log or b"", quote, None, node=node, rules=decisions, asked_at=now, now=now)
    except StartLogRefused as error:
        return error


def _expected_selection(attest: bytes, reference: ReferenceSet) -> PcrSelection:
    """Whoever collects chooses the selection; each expected PCR must be in it; appraisal judges all of it."""
    attested = parse_attest(attest).attested
    if not isinstance(attested, Quoted):
        return PcrSelection(())  # verify_quote refuses the type
    quoted = {bank.algorithm: set(bank.pcrs) for bank in attested.selection.banks}
    if reference.runtime is not None and not any(IMA_PCR in pcrs for pcrs in quoted.values()):
        raise EvidenceIncomplete(f"PCR {IMA_PCR} was not quoted, and the reference set says what may run")
    if reference.starts and STARTS_PCR not in quoted.get(HashAlgorithm.SHA256, set()):
        raise EvidenceIncomplete(f"PCR {STARTS_PCR} was not quoted, and the reference set says that starts are logged")
    for algorithm, bank in reference.pcrs.items():
        absent = sorted(bank.keys() - quoted.get(algorithm, set()))
        if absent:
            raise EvidenceIncomplete(f"PCRs {absent} ({algorithm.label}) of the reference set were not quoted")
    return attested.selection


def _check_parent(quote: UnanchoredQuote, ak: Public, parent: Public) -> None:
    if quote.qualified_signer != signer_name(ak, parent):
        raise QuoteSignerMismatch("the qualified signer is not this AK under ak_parent.pub")


def _pcrs(text: bytes) -> PcrValues:
    if len(text) > MAX_PCRS_SIZE:
        raise PcrValuesInvalid(f"pcrs.json is larger than {MAX_PCRS_SIZE} bytes")
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise PcrValuesInvalid("pcrs.json is no JSON") from None
    return parse_pcr_values(value)
