"""How any decision about a node is carried out: on its locked row, in one transaction, and told if it is refused."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.service.errors import NodeUnknown
from umec_attest.service.nodes.views import view
from umec_attest.service.refusals import Refusals
from umec_attest.service.standings.ledger import StandingLedger
from umec_attest.service.tables import NodeRow
from umec_core.audit import AuditLog
from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.store import Store

__all__ = ["Decisions", "Work"]

Work = Callable[[AsyncSession, NodeRow, datetime], Awaitable[None]]
"""Changes a locked row, or raises why it may not."""


class Decisions:
    """Carries decisions out."""

    def __init__(
        self, store: Store, audit: AuditLog, ledger: StandingLedger, refusals: Refusals, *, clock: Clock
    ) -> None:
        self._store = store
        self._audit = audit
        self._ledger = ledger
        self._refusals = refusals
        self._clock = clock

    async def decide(self, action: str, node_id: str, actor: str, work: Work, *, own: bool = False) -> dict[str, Any]:
        """Carry a decision out and return the node after it; raises `NodeUnknown` and what the work raises.

        `own` is a decision of the node about itself: its refusals are told to it alone, for it can cause any number.
        """
        now = self._clock()

        async def decided(session: AsyncSession) -> dict[str, Any]:
            node = await session.get(NodeRow, node_id, with_for_update=True)
            if node is None:
                raise NodeUnknown(f"there is no node {node_id}")
            await work(session, node, now)
            return view(node)

        try:
            shown = await self._store.write(decided)
        except UmecError as error:
            if not own:
                await self._refusals.operator(action, node_id, error, now, actor=actor)
            raise
        self._ledger.announce()
        return shown

    async def write_down(
        self, session: AsyncSession, action: str, node: NodeRow, now: datetime, *, actor: str, facts: dict[str, Any]
    ) -> None:
        """Write a decision that is no change of standing into the audit log."""
        await self._audit.append(
            session, actor=actor, action=action, subject=node.id, outcome="done", facts=facts, now=now
        )
