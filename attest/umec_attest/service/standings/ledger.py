"""The one place that changes a standing: generation, feed row and audit entry in the caller's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from sqlalchemy import Connection, Table, bindparam, insert, inspect, update
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.service.tables import NodeRow, StandingRow
from umec_core.audit import AuditEntry, AuditLog
from umec_core.events import Events
from umec_core.standing import Standing
from umec_core.store import serialise, serialise_plain

__all__ = ["TOPIC", "Change", "StandingLedger"]

TOPIC: Final = "standings"

_COLUMNS: Final = ("standing", "generation", "reason", "changed_at", "last_seq")
_TABLE: Final = cast("Table", inspect(NodeRow).local_table)
_UPDATE: Final = (
    update(_TABLE).where(_TABLE.c.id == bindparam("node")).values({name: bindparam(f"new_{name}") for name in _COLUMNS})
)
_FEED: Final = insert(StandingRow).returning(StandingRow.node, StandingRow.generation, StandingRow.seq)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of standing that was decided about a locked row; `generation` is the one that it begins."""

    node: str
    tenant: str | None
    before: str
    standing: str
    generation: int
    reason: str
    at: datetime


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
        change = Change(node.id, node.tenant, node.standing, standing.value, node.generation + 1, reason, now)
        node.standing, node.generation = change.standing, change.generation
        node.reason, node.changed_at = reason, now
        await self.record(session, node)
        await self._audit.append_all(session, [_entry(change, actor)])

    def change_all(self, connection: Connection, changes: Sequence[Change], *, actor: str) -> None:
        """Write changes that were decided for many nodes: rows, feed and audit (`Store.write_plain`)."""
        if not changes:
            return
        serialise_plain(connection, TOPIC)
        feed = [
            {
                "node": change.node,
                "tenant": change.tenant,
                "standing": change.standing,
                "generation": change.generation,
                "changed_at": change.at,
            }
            for change in changes
        ]
        numbers = {(node, generation): seq for node, generation, seq in connection.execute(_FEED, feed)}
        rows = [
            {
                "node": change.node,
                "new_standing": change.standing,
                "new_generation": change.generation,
                "new_reason": change.reason,
                "new_changed_at": change.at,
                "new_last_seq": numbers[change.node, change.generation],
            }
            for change in changes
        ]
        connection.execute(_UPDATE, rows)
        self._audit.append_plain(connection, [_entry(change, actor) for change in changes])

    async def advance(self, session: AsyncSession, node: NodeRow, *, now: datetime) -> None:
        """Take a node to its next generation in the standing that it has; the caller writes the audit entry."""
        node.generation, node.changed_at = node.generation + 1, now
        await self.record(session, node)

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


def _entry(change: Change, actor: str) -> AuditEntry:
    facts = {
        "from": change.before,
        "to": change.standing,
        "generation": change.generation,
        "reason": change.reason,
    }
    return AuditEntry(actor, "standing.change", change.node, "done", change.at, facts=facts)
