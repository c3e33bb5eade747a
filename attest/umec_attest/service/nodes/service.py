"""What operators see of nodes and decide about them. Every decision is in the audit log under the operator's name."""

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.bootlog import RawBootLog, parse_boot_log
from umec_attest.service.errors import (
    AssignmentMissing,
    NodeRevoked,
    NodeUnknown,
    ReadmitNeedsBoot,
    StandingConflict,
)
from umec_attest.service.nodes.explain import measured_events, pcrs_in
from umec_attest.service.nodes.schemas import Approval, Decision
from umec_attest.service.refusals import Refusals
from umec_attest.service.standings.ledger import StandingLedger
from umec_attest.service.tables import BootLogRow, NodeRow, StandingRow
from umec_attest.service.wire import instant
from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.standing import Standing
from umec_core.store import Store

__all__ = ["NodeService"]

HISTORY: Final = 20
"""Changes of standing that `explain` shows."""

_Work = Callable[[AsyncSession, NodeRow, datetime], Awaitable[None]]


class NodeService:
    """Shows nodes and carries out what operators decide. `tenant` None sees all, another only its own."""

    def __init__(
        self,
        store: Store,
        audit: AuditLog,
        ledger: StandingLedger,
        refusals: Refusals,
        *,
        readmit_untrusted: bool,
        clock: Clock,
    ) -> None:
        self._store = store
        self._audit = audit
        self._ledger = ledger
        self._refusals = refusals
        self._readmit_untrusted = readmit_untrusted
        self._clock = clock

    async def list(self, tenant: str | None) -> list[dict[str, Any]]:
        """Return all nodes that the caller may see."""
        query = select(NodeRow).order_by(NodeRow.id)
        if tenant is not None:
            query = query.where(NodeRow.tenant == tenant)
        async with self._store.read() as session:
            return [_view(row) for row in await session.scalars(query)]

    async def read(self, node_id: str, tenant: str | None) -> dict[str, Any]:
        """Return one node; raises `NodeUnknown`."""
        async with self._store.read() as session:
            return _view(await _visible(session, node_id, tenant))

    async def explain(self, node_id: str, tenant: str | None) -> dict[str, Any]:
        """Return why a node has its standing: the last judged round, what its boot measured, the changes before."""
        async with self._store.read() as session:
            node = await _visible(session, node_id, tenant)
            query = select(StandingRow).where(StandingRow.node == node_id).order_by(StandingRow.seq.desc())
            changes = list(await session.scalars(query.limit(HISTORY)))
            last = _last_round(node)
            events = [] if last is None else await _events(session, node, last["findings"])
        return {
            **_view(node),
            "needs_new_boot": node.fell_at_reset is not None,
            "last_round": last,
            "events": events,
            "history": [
                {"standing": row.standing, "generation": row.generation, "changed_at": instant(row.changed_at)}
                for row in changes
            ],
        }

    async def approve(self, node_id: str, approval: Approval, *, actor: str) -> dict[str, Any]:
        """Let a pending node be judged; its first good evidence makes it trusted."""

        async def work(session: AsyncSession, node: NodeRow, now: datetime) -> None:
            if node.standing != Standing.PENDING.value or node.approved:
                raise StandingConflict(f"node {node.id} does not wait for approval")
            node.tenant, node.image = approval.tenant or node.tenant, approval.image or node.image
            if node.tenant is None or node.image is None:
                raise AssignmentMissing("an approval names the tenant and the image of a node that had no ticket")
            node.approved = True
            facts = {"tenant": node.tenant, "image": node.image}
            await self._audit.append(
                session,
                actor=actor,
                action="node.approve",
                subject=node.id,
                outcome="done",
                facts=facts,
                now=now,
            )

        return await self._decide("node.approve", node_id, actor, work)

    async def quarantine(self, node_id: str, decision: Decision, *, actor: str) -> dict[str, Any]:
        """Take a node out until an operator readmits it, whatever its evidence says."""
        return await self._move(node_id, Standing.QUARANTINED, decision, actor, "node.quarantine")

    async def revoke(self, node_id: str, decision: Decision, *, actor: str) -> dict[str, Any]:
        """Take a node out for good: only a new ticket brings it back."""
        return await self._move(node_id, Standing.REVOKED, decision, actor, "node.revoke")

    async def readmit(self, node_id: str, decision: Decision, *, actor: str) -> dict[str, Any]:
        """Let a quarantined node be judged again; an untrusted one only if the settings allow that without a boot."""

        async def work(session: AsyncSession, node: NodeRow, now: datetime) -> None:
            if node.standing not in {Standing.QUARANTINED.value, Standing.UNTRUSTED.value}:
                raise StandingConflict(f"node {node.id} is {node.standing}: there is nothing to readmit")
            if node.fell_at_reset is not None and not self._readmit_untrusted:
                if node.standing == Standing.UNTRUSTED.value:
                    raise ReadmitNeedsBoot(
                        f"node {node.id} was found untrusted", advice="boot it into the expected image"
                    )
                standing = Standing.UNTRUSTED
            else:
                node.fell_at_reset = None
                standing = Standing.PENDING
            reason = decision.reason or "readmitted"
            await self._ledger.change(session, node, standing, actor=actor, reason=reason, now=now)

        return await self._decide("node.readmit", node_id, actor, work)

    async def _move(
        self, node_id: str, standing: Standing, decision: Decision, actor: str, action: str
    ) -> dict[str, Any]:
        async def work(session: AsyncSession, node: NodeRow, now: datetime) -> None:
            if node.standing == Standing.REVOKED.value:
                raise NodeRevoked(f"node {node.id} is revoked already")
            node.deadline = None
            reason = decision.reason or f"{standing.value} by an operator"
            await self._ledger.change(session, node, standing, actor=actor, reason=reason, now=now)

        return await self._decide(action, node_id, actor, work)

    async def _decide(self, action: str, node_id: str, actor: str, work: _Work) -> dict[str, Any]:
        now = self._clock()

        async def decided(session: AsyncSession) -> dict[str, Any]:
            node = await session.get(NodeRow, node_id, with_for_update=True)
            if node is None:
                raise NodeUnknown(f"there is no node {node_id}")
            await work(session, node, now)
            return _view(node)

        try:
            view = await self._store.write(decided)
        except UmecError as error:
            await self._refusals.operator(action, node_id, error, now, actor=actor)
            raise
        self._ledger.announce()
        return view


def _last_round(node: NodeRow) -> dict[str, Any] | None:
    if node.last_round is None:
        return None
    said: dict[str, Any] = json.loads(node.last_round)
    if node.round_at is None:  # of a verifier before this one: it has its time within
        return said
    return {"at": instant(node.round_at), **said, "evidence_sha256": node.evidence_sha256}


async def _events(session: AsyncSession, node: NodeRow, findings: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Return what this boot measured into the PCRs that findings name; nothing where its log did not replay."""
    pcrs, log = pcrs_in(findings), await _log_of(session, node)
    if not pcrs or log is None:
        return []
    peers = select(NodeRow).where(
        NodeRow.id != node.id,
        NodeRow.tenant == node.tenant,
        NodeRow.image == node.image,
        NodeRow.standing == Standing.TRUSTED.value,
        NodeRow.boot_log_sha256.is_not(None),
    )
    peer = await session.scalar(peers.order_by(NodeRow.id).limit(1))
    return measured_events(log, pcrs, None if peer is None else await _log_of(session, peer))


async def _log_of(session: AsyncSession, node: NodeRow) -> RawBootLog | None:
    row = None if node.boot_log_sha256 is None else await session.get(BootLogRow, node.boot_log_sha256)
    return None if row is None else parse_boot_log(row.content)


async def _visible(session: AsyncSession, node_id: str, tenant: str | None) -> NodeRow:
    node = await session.get(NodeRow, node_id)
    if node is None or (tenant is not None and node.tenant != tenant):
        raise NodeUnknown(f"there is no node {node_id}")
    return node


def _view(node: NodeRow) -> dict[str, Any]:
    return {
        "node": node.id,
        "tenant": node.tenant,
        "image": node.image,
        "standing": node.standing,
        "generation": node.generation,
        "reason": node.reason,
        "approved": node.approved,
        "ek_sha256": node.ek_sha256,
        "changed_at": instant(node.changed_at),
        "enrolled_at": instant(node.enrolled_at),
        "rounds": node.rounds,
        "deadline": None if node.deadline is None else instant(node.deadline),
    }
