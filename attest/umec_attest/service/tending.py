"""What is over is not kept: enrolments, tickets, boot logs, evidence, and the history of rounds and standings."""

import asyncio
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.service.evidence.logs import unnamed
from umec_attest.service.refusals import Refusals
from umec_attest.service.tables import BootLogRow, EnrolmentRow, EvidenceRow, NodeRow, RoundRow, StandingRow, TicketRow
from umec_core.clock import Clock
from umec_core.store import Store

__all__ = ["HISTORY_KEPT", "Tending"]

PAUSE: Final = 60.0
"""Seconds between two rounds of cleaning."""
KEPT_AFTER: Final = timedelta(hours=1)
"""How long an enrolment that is over is remembered, so that a late activation hears why."""
HISTORY_KEPT: Final = timedelta(days=30)
"""How long `explain` tells former standings, and an old ticket why it is none. The audit log keeps both for ever."""

log = structlog.get_logger("umec.attest")


class Tending:
    """Deletes what is over, and has what was refused and not written told."""

    def __init__(self, store: Store, refusals: Refusals, *, history: timedelta, clock: Clock) -> None:
        """`history` is how long rounds that changed something are told, and evidence of contradictions is kept."""
        self._store = store
        self._refusals = refusals
        self._history = history
        self._clock = clock

    async def run(self) -> None:
        """Tend until cancelled."""
        while True:
            try:
                await self.tend()
            except Exception:
                log.exception("cleaning failed")
            await asyncio.sleep(PAUSE)

    async def tend(self) -> None:
        """Clean once. The newest feed row of each node stays: followers begin with it."""
        now = self._clock()

        async def work(session: AsyncSession) -> None:
            await session.execute(delete(EnrolmentRow).where(EnrolmentRow.expires_at < now - KEPT_AFTER))
            named = select(EnrolmentRow.ticket).where(EnrolmentRow.ticket.is_not(None))
            over = TicketRow.expires_at < now - HISTORY_KEPT
            await session.execute(delete(TicketRow).where(over, TicketRow.secret_sha256.not_in(named)))
            old = StandingRow.changed_at < now - HISTORY_KEPT
            await session.execute(delete(StandingRow).where(old, StandingRow.seq.not_in(select(NodeRow.last_seq))))
            await session.execute(delete(RoundRow).where(RoundRow.at < now - self._history))
            await session.execute(delete(EvidenceRow).where(EvidenceRow.kept_at < now - self._history))
            await session.execute(delete(BootLogRow).where(BootLogRow.stored_at < now - KEPT_AFTER, unnamed()))

        await self._store.write(work)
        await self._refusals.summarise(now)

    async def end(self) -> None:
        """Tell what was refused and not written until now."""
        await self._refusals.summarise(self._clock(), early=True)
