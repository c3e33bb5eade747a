"""What operators see of nodes and decide about them. Every decision is in the audit log under the operator's name."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.bootlog import RawBootLog, parse_boot_log
from umec_attest.service.errors import AssignmentMissing, NodeUnknown, StandingConflict
from umec_attest.service.nodes.decisions import Decisions
from umec_attest.service.nodes.explain import measured_events, pcrs_in
from umec_attest.service.nodes.moves import Plan, away, back
from umec_attest.service.nodes.schemas import Approval, Decision, NodeClass
from umec_attest.service.nodes.views import last_round, view
from umec_attest.service.references.owners import ImageOwners
from umec_attest.service.standings.ledger import StandingLedger
from umec_attest.service.tables import BootLogRow, NodeRow, StandingRow
from umec_attest.service.wire import instant
from umec_attest.tpm.public import parse_public
from umec_core.standing import Standing
from umec_core.store import Store

__all__ = ["NodeService"]

HISTORY: Final = 20
"""Changes of standing that `explain` shows."""


class NodeService:
    """Shows nodes and carries out what operators decide. `tenant` None sees all, another only its own."""

    def __init__(
        self,
        store: Store,
        ledger: StandingLedger,
        decisions: Decisions,
        *,
        owners: ImageOwners,
        readmit_untrusted: bool,
    ) -> None:
        self._store = store
        self._owners = owners
        self._ledger = ledger
        self._decisions = decisions
        self._readmit_untrusted = readmit_untrusted

    async def list(
        self,
        tenant: str | None,
        *,
        of: str | None = None,
        standing: Standing | None = None,
        node_class: NodeClass | None = None,
        after: str = "",
        limit: int,
    ) -> dict[str, Any]:
        """Return nodes that the caller may see in the order of their ids, and after which one the next page begins.

        `of` is a tenant, `after` the last id of the page before; `next` is None on the last page.
        """
        query = select(NodeRow).where(NodeRow.id > after).order_by(NodeRow.id).limit(limit + 1)
        wanted = {
            NodeRow.tenant: (tenant, of),
            NodeRow.standing: (None if standing is None else standing.value,),
            NodeRow.node_class: (None if node_class is None else node_class.value,),
        }
        for column, values in wanted.items():
            for value in values:
                query = query if value is None else query.where(column == value)
        async with self._store.read() as session:
            rows = list(await session.scalars(query))
        return {"nodes": [view(row) for row in rows[:limit]], "next": rows[limit - 1].id if rows[limit:] else None}

    async def read(self, node_id: str, tenant: str | None) -> dict[str, Any]:
        """Return one node; raises `NodeUnknown`."""
        async with self._store.read() as session:
            return view(await _visible(session, node_id, tenant))

    async def explain(self, node_id: str, tenant: str | None) -> dict[str, Any]:
        """Return why a node has its standing: the last judged round, what its boot measured, the changes before."""
        async with self._store.read() as session:
            node = await _visible(session, node_id, tenant)
            query = select(StandingRow).where(StandingRow.node == node_id).order_by(StandingRow.seq.desc())
            changes = list(await session.scalars(query.limit(HISTORY)))
            last = last_round(node)
            events = [] if last is None else await _events(session, node, last["findings"])
        return {
            **view(node),
            "needs_new_boot": node.fell_at_reset is not None,
            "last_round": last,
            "events": events,
            "history": [
                {"standing": row.standing, "generation": row.generation, "changed_at": instant(row.changed_at)}
                for row in changes
            ],
        }

    async def approve(self, node_id: str, approval: Approval, *, actor: str) -> dict[str, Any]:
        """Let a pending node be judged; its first good evidence makes it trusted.

        Its node key has to be bound as the owner of its image wants it: `NodeKeyUnbound`, `NodeKeyPolicy`.
        """

        async def work(session: AsyncSession, node: NodeRow, now: datetime) -> None:
            if node.standing != Standing.PENDING.value or node.approved:
                raise StandingConflict(f"node {node.id} does not wait for approval")
            node.tenant, node.image = approval.tenant or node.tenant, approval.image or node.image
            if node.tenant is None or node.image is None:
                raise AssignmentMissing("an approval names the tenant and the image of a node that had no ticket")
            await self._owners.check(node.image, parse_public(node.node_key_public), session)
            node.approved, node.node_class = True, approval.node_class.value
            facts = {"tenant": node.tenant, "image": node.image, "class": node.node_class}
            await self._decisions.write_down(session, "node.approve", node, now, actor=actor, facts=facts)

        return await self._decisions.decide("node.approve", node_id, actor, work)

    async def quarantine(self, node_id: str, decision: Decision, *, actor: str, dry: bool = False) -> dict[str, Any]:
        """Take a node out until an operator readmits it, whatever its evidence says."""
        return await self._move("node.quarantine", node_id, decision, away(Standing.QUARANTINED), actor, dry=dry)

    async def revoke(self, node_id: str, decision: Decision, *, actor: str, dry: bool = False) -> dict[str, Any]:
        """Take a node out for good: only a new ticket brings it back."""
        return await self._move("node.revoke", node_id, decision, away(Standing.REVOKED), actor, dry=dry)

    async def readmit(self, node_id: str, decision: Decision, *, actor: str, dry: bool = False) -> dict[str, Any]:
        """Let a quarantined node be judged again; an untrusted one only if the settings allow that without a boot."""
        plan = back(untrusted=self._readmit_untrusted)
        return await self._move("node.readmit", node_id, decision, plan, actor, dry=dry)

    async def _move(
        self, action: str, node_id: str, decision: Decision, plan: Plan, actor: str, *, dry: bool
    ) -> dict[str, Any]:
        """Carry a plan out; `dry` only tells the standing that it gives, or raises what it refuses."""
        if dry:
            async with self._store.read() as session:
                node = await _visible(session, node_id, None)
            return {**view(node), "standing": plan(node).standing.value, "dry_run": True}

        async def work(session: AsyncSession, node: NodeRow, now: datetime) -> None:
            move = plan(node)
            node.deadline = None
            node.fell_at_reset = None if move.forgive else node.fell_at_reset
            reason = decision.reason or move.reason
            await self._ledger.change(session, node, move.standing, actor=actor, reason=reason, now=now)

        return await self._decisions.decide(action, node_id, actor, work)


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
