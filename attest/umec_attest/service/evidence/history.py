"""What rounds said over time: one row for each that changed something, and the evidence of those that contradicted.

A steady round leaves nothing. Evidence is kept by its hash, so that anybody can judge the boot again, without the list
of what ran, which is long and differs on each node; rows and evidence go after the days that the settings say
(`umec_attest.service.tending`). Of one node the first evidence of these days is kept, up to a bound: whoever has the
node can neither fill the disk by more of it, nor push out what it fell by.
"""

import json
from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, func, insert, select
from sqlalchemy.orm import aliased

from umec_attest.appraisal import Appraisal, Verdict
from umec_attest.service.errors import EvidenceUnknown
from umec_attest.service.evidence.judging import Judged
from umec_attest.service.evidence.state import NodeState
from umec_attest.service.tables import BootLogRow, EvidenceRow, RoundRow
from umec_attest.service.wire import encode, instant
from umec_core.store import Store

__all__ = ["PAGE", "History", "is_news", "write_history"]

PAGE: Final = 100
"""Rows of one answer."""
MOST_OF_NODE: Final = 1000
"""Rounds of one node that are told: whoever has its keys cannot fill the database by changing something each time."""
MOST_EVIDENCE: Final = 10
MOST_EVIDENCE_SIZE: Final = 2 * 1024 * 1024
"""Evidence of one node that is kept, in pieces and in bytes with the boot logs: ten of the usual logs take 1 MB. What
reaches the bound is the last, so that one more log (744 KB at most) may go beyond it."""

_OTHER: Final = aliased(RoundRow)
_BEYOND: Final = delete(RoundRow).where(
    RoundRow.node == bindparam("of"),
    RoundRow.seq
    <= select(_OTHER.seq)
    .where(_OTHER.node == bindparam("of"))
    .order_by(_OTHER.seq.desc())
    .offset(bindparam("most"))
    .limit(1)
    .scalar_subquery(),
)


def is_news(before: NodeState, after: NodeState, appraisal: Appraisal) -> bool:
    """Tell whether a round changed verdict, findings, standing, boot or log of a node."""
    told = (appraisal.verdict.value, [finding.id for finding in appraisal.findings])
    last = told if before.last_round == after.last_round else _told(before.last_round)  # which reads it
    kept = (before.standing, before.boot_log_sha256, before.boot_log_reset, last)
    return kept != (after.standing, after.boot_log_sha256, after.boot_log_reset, told)


def write_history(connection: Connection, rounds: Sequence[tuple[NodeState, Judged]]) -> None:
    """Write down rounds that are news, each with the node after it."""
    if rounds:
        connection.execute(insert(RoundRow), [_row(node, judged) for node, judged in rounds])
        connection.execute(_BEYOND, [{"of": node.id, "most": MOST_OF_NODE} for node, _ in rounds])
    contradicted = [judged for _, judged in rounds if judged.appraisal.verdict is Verdict.CONTRAINDICATED]
    if contradicted:
        full = _full(connection, {judged.node.id for judged in contradicted})
        kept = [_evidence(judged) for judged in contradicted if judged.node.id not in full]
        if kept:
            connection.execute(insert(EvidenceRow), kept)


class History:
    """Shows what was written. Who may see a node is for the caller to say."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def rounds(self, node: str, before: int | None) -> dict[str, Any]:
        """Return the rounds of a node that changed something, the newest first; `next` is the `before` of more."""
        query = select(RoundRow).where(RoundRow.node == node).order_by(RoundRow.seq.desc()).limit(PAGE)
        if before is not None:
            query = query.where(RoundRow.seq < before)
        async with self._store.read() as session:
            rows = list(await session.scalars(query))
        page: dict[str, Any] = {"history": [_view(row) for row in rows]}
        return page if len(rows) < PAGE else {**page, "next": rows[-1].seq}

    async def evidence(self, node: str, sha256: str) -> dict[str, Any]:
        """Return the evidence of a round that contradicted, without its list of what ran; raises `EvidenceUnknown`."""
        async with self._store.read() as session:
            row = await session.get(EvidenceRow, sha256)
            if row is None or row.node != node:
                raise EvidenceUnknown(f"no evidence of {node} is kept under this hash")
            log = await session.get(BootLogRow, row.boot_log_sha256)
        return {
            **json.loads(row.content),
            "received_at": instant(row.kept_at),
            "boot_log_sha256": row.boot_log_sha256,
            "boot_log": None if log is None else encode(log.content),
        }


def _full(connection: Connection, nodes: Collection[str]) -> set[str]:
    """Return those of these nodes of which no more evidence is kept."""
    size = func.sum(func.length(EvidenceRow.content) + func.coalesce(func.length(BootLogRow.content), 0))
    query = (
        select(EvidenceRow.node)
        .outerjoin(BootLogRow, BootLogRow.sha256 == EvidenceRow.boot_log_sha256)
        .where(EvidenceRow.node.in_(nodes))
        .group_by(EvidenceRow.node)
        .having((func.count() >= MOST_EVIDENCE) | (size >= MOST_EVIDENCE_SIZE))
    )
    return set(connection.scalars(query))


def _told(last_round: str | None) -> tuple[str, list[str]] | None:
    if last_round is None:
        return None
    said = json.loads(last_round)
    return said["verdict"], [finding["id"] for finding in said["findings"]]


def _row(node: NodeState, judged: Judged) -> dict[str, Any]:
    appraisal = judged.appraisal
    return {
        "node": node.id,
        "at": judged.now,
        "round": node.rounds,
        "verdict": appraisal.verdict.value,
        "findings": json.dumps([finding.id for finding in appraisal.findings]),
        "standing": node.standing,
        "generation": node.generation,
        "reset_count": judged.quote.clock_info.reset_count,
        "boot_log_sha256": judged.log.sha256,
        "evidence_sha256": judged.evidence_sha256,
        "reference_version": judged.reference.version,
        "reference_sha256": judged.reference.sha256,
        "policy_sha256": appraisal.policy_digest,
    }


def _evidence(judged: Judged) -> dict[str, Any]:
    request, at, started = judged.request, judged.node.runtime_checkpoint, judged.node.start_checkpoint
    content = {
        "ak_public": encode(judged.node.ak_public),
        "ek_public": encode(judged.node.ek_public),
        "nonce": encode(judged.nonce),
        "quote": encode(request.quote),
        "signature": encode(request.signature),
        "pcrs": request.pcrs,
        "runtime_checkpoint": None if at is None else json.loads(at),
        "start_checkpoint": None if started is None else json.loads(started),
    }
    return {
        "sha256": judged.evidence_sha256,
        "node": judged.node.id,
        "boot_log_sha256": judged.log.sha256,
        "content": json.dumps(content),
        "kept_at": judged.now,
    }


def _view(row: RoundRow) -> dict[str, Any]:
    return {
        "at": instant(row.at),
        "round": row.round,
        "verdict": row.verdict,
        "findings": json.loads(row.findings),
        "standing": row.standing,
        "generation": row.generation,
        "reset_count": row.reset_count,
        "boot_log_sha256": row.boot_log_sha256,
        "evidence_sha256": row.evidence_sha256,
        "reference": {"version": row.reference_version, "sha256": row.reference_sha256},
        "policy_sha256": row.policy_sha256,
    }
