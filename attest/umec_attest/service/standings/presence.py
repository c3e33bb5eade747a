"""The verifier's own absence, which is nobody's silence: what time it was not there, no node is short of.

Some process of the service writes down every few seconds that it is there. Where that was not done for longer than it
may take (all were stopped, killed, without their database; or the clock was set forward), every deadline is later by
that time. Where the clock was set back, no deadline is later than that of a node that is heard now. In between nodes
may be heard again before it is noticed that they were not: no deadline gets later than theirs.
"""

from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import BigInteger, CursorResult, case, literal, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.service.tables import NodeRow, PresenceRow
from umec_attest.service.wire import instant
from umec_core.audit import AuditLog
from umec_core.store import Timestamp, serialise

__all__ = ["Presence"]

LONGEST_BEAT: Final = timedelta(seconds=5)
"""Between two marks at most: each is a write, and a restart is forgiven that much more than it took."""
BEATS_A_ROUND: Final = 6
MISSED_BEATS: Final = 3
"""So many marks that are missing are an absence; half a round at most, so that what is not forgiven harms nobody."""
THE_ROW: Final = 1

log = structlog.get_logger("umec.attest")


class Presence:
    """Marks that the service is there, and makes up for the time when it was not."""

    def __init__(self, audit: AuditLog, *, round_time: timedelta, silence: timedelta) -> None:
        """`silence` is how long after a round a node's deadline is."""
        self._audit = audit
        self._silence = silence
        self.beat: Final = min(round_time / BEATS_A_ROUND, LONGEST_BEAT)

    async def due(self, session: AsyncSession, now: datetime) -> bool:
        """Tell whether it is time for a mark."""
        row = await session.get(PresenceRow, THE_ROW)
        return row is None or abs(now - row.seen_at) >= self.beat

    async def mark(self, session: AsyncSession, now: datetime) -> None:
        """Mark that the service is there; after an absence, deadlines are moved and the audit log says so."""
        await serialise(session, "presence")  # of several that begin at once, one writes the row
        row = await session.get(PresenceRow, THE_ROW, with_for_update=True)
        if row is None:
            session.add(PresenceRow(id=THE_ROW, seen_at=now))
            return
        if abs(now - row.seen_at) > MISSED_BEATS * self.beat:
            await self._make_up(session, row.seen_at, now)
        row.seen_at = now

    async def _make_up(self, session: AsyncSession, since: datetime, now: datetime) -> None:
        away, latest = now - since, literal(now + self._silence, Timestamp)
        lost = max(away, timedelta(0)) // timedelta(microseconds=1)
        moved = type_coerce(NodeRow.deadline, BigInteger) + lost
        changed: CursorResult[Any] = await session.execute(  # type: ignore[assignment]  # an UPDATE has a cursor
            update(NodeRow)
            .where(NodeRow.deadline.is_not(None))
            .values(deadline=case((moved < latest, moved), else_=latest))
            .execution_options(synchronize_session=False)
        )
        facts = {"since": instant(since), "seconds": away // timedelta(seconds=1), "nodes": changed.rowcount}
        log.warning("the verifier was away: deadlines are later by that time", **facts)
        await self._audit.append(
            session, actor="verifier", action="verifier.away", subject="verifier", outcome="done", facts=facts, now=now
        )
