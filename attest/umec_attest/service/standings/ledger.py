"""The one place that changes a standing: generation, feed row and audit entry in the caller's transaction."""

from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.service.tables import NodeRow, StandingRow
from umec_core.audit import AuditLog
from umec_core.events import Events
from umec_core.standing import Standing
from umec_core.store import serialise

__all__ = ["TOPIC", "StandingLedger"]

TOPIC: Final = "standings"


class StandingLedger:
    """Changes standings. Call `announce` after the COMMIT, so that those who wait look again."""

    def __init__(self, audit: AuditLog, events: Events) -> None:
        self._audit = audit
        self._events = events

    async def change(
        self, session: AsyncSession, node: NodeRow, standing: Standing, *, actor: str, reason: str, now: datetime
    ) -> None:
        """Give a node a standing. A change takes the node to its next generation; what is no change does nothing."""
        if node.standing == standing.value:
            return
        before = node.standing
        node.standing, node.generation = standing.value, node.generation + 1
        node.reason, node.changed_at = reason, now
        await self.record(session, node)
        await self._audit.append(
            session,
            actor=actor,
            action="standing.change",
            subject=node.id,
            outcome="done",
            facts={"from": before, "to": standing.value, "generation": node.generation, "reason": reason},
            now=now,
        )

    async def record(self, session: AsyncSession, node: NodeRow) -> None:
        """Write the present standing of a node into the feed. Numbers become visible in their order."""
        await serialise(session, TOPIC)
        row = StandingRow(
            node=node.id,
            tenant=node.tenant,
            standing=node.standing,
            generation=node.generation,
            changed_at=node.changed_at,
        )
        session.add(row)
        await session.flush()
        node.last_seq = row.seq

    def announce(self) -> None:
        """Wake those who wait for changes."""
        self._events.publish(TOPIC, {})
