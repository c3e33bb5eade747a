"""The verifier's own absence, which is nobody's silence: what time it was not there, no node is short of.

Each process of the service writes down every few seconds that it is there. Where none did for longer than it may take
(all were stopped, killed, without their database; or the clock was set forward), every deadline is later by that time.
Where the clock was set back, no deadline is later than that of a node that is heard now. In between nodes may be heard
again before it is noticed that they were not: no deadline gets later than theirs.

Each writes its own time, and clocks differ: what was not there a moment ago is of now, and shows how far behind the
clock of its writer is. Only who has just started takes the others' time for its own.
"""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import BigInteger, CursorResult, case, literal, select, type_coerce, update
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
NAMES: Final = 2**31
"""So many names there are for processes: what an integer of any database holds."""
KEPT: Final = timedelta(hours=1)
"""For how long the last mark of a process that is gone is kept, where there are others."""

log = structlog.get_logger("umec.attest")


class Presence:
    """Marks that the service is there, and makes up for the time when it was not."""

    def __init__(self, audit: AuditLog, *, round_time: timedelta, silence: timedelta) -> None:
        """`silence` is how long after a round a node's deadline is."""
        self._audit = audit
        self._silence = silence
        self.beat: Final = min(round_time / BEATS_A_ROUND, LONGEST_BEAT)
        self._name = secrets.randbelow(NAMES)
        self._seen: dict[int, datetime] = {}
        self._behind: dict[int, timedelta] = {}  # how far the clocks of others are behind ours
        self._looked_at: datetime | None = None

    async def due(self, session: AsyncSession, now: datetime) -> bool:
        """Look at the marks, and tell whether it is time for one of ours."""
        rows = list(await session.scalars(select(PresenceRow)))
        self._look(rows, now)
        return all(row.id != self._name or abs(now - row.seen_at) >= self.beat for row in rows)

    async def mark(self, session: AsyncSession, now: datetime) -> None:
        """Mark that this process is there; after an absence, deadlines are moved and the audit log says so."""
        await serialise(session, "presence")  # of several that are back at once, one makes up
        rows = list(await session.scalars(select(PresenceRow).with_for_update()))
        self._look(rows, now)
        last = min((self._ours(row) for row in rows), key=lambda at: abs(now - at), default=now)
        if abs(now - last) > MISSED_BEATS * self.beat:
            await self._make_up(session, last, now)
        for row in rows:
            ahead = self._ours(row) - now > MISSED_BEATS * self.beat  # of a time that was set back, and will come again
            if row.id == self._name or ahead or abs(now - self._ours(row)) > KEPT:
                await session.delete(row)
        await session.flush()
        session.add(PresenceRow(id=self._name, seen_at=now))

    def _look(self, rows: Sequence[PresenceRow], now: datetime) -> None:
        """Remember the marks, and of those that are new since a moment ago how far their clocks are behind."""
        moment = MISSED_BEATS * self.beat
        watched = self._looked_at is not None and timedelta(0) <= now - self._looked_at <= moment
        for row in rows:
            if watched and row.id != self._name and row.seen_at != self._seen.get(row.id):
                self._behind[row.id] = now - row.seen_at
        self._seen = {row.id: row.seen_at for row in rows}
        self._behind = {name: behind for name, behind in self._behind.items() if name in self._seen}
        self._looked_at = now

    def _ours(self, row: PresenceRow) -> datetime:
        """Return when a mark was made, by our clock."""
        return row.seen_at + self._behind.get(row.id, timedelta(0))

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
