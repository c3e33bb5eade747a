"""The deadline of the silent: a node that was not heard for its rounds lapses, asked for or not."""

import asyncio
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_attest.service.standings.ledger import StandingLedger
from umec_attest.service.standings.presence import Presence
from umec_attest.service.tables import NodeRow
from umec_core.clock import Clock
from umec_core.standing import Standing
from umec_core.store import Store

__all__ = ["SilenceWatch"]

LONGEST_SLEEP: Final = 1.0
"""Seconds between two looks: new deadlines are later ones, but another replica or a set clock tells nobody."""

SHORTEST_SLEEP: Final = 0.01

log = structlog.get_logger("umec.attest")


class SilenceWatch:
    """Lapses silent nodes at their deadline. Deadlines are rows: a restart forgets none, and forgives its own time."""

    def __init__(self, store: Store, ledger: StandingLedger, presence: Presence, *, clock: Clock) -> None:
        self._store = store
        self._ledger = ledger
        self._presence = presence
        self._clock = clock

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            pause = LONGEST_SLEEP
            try:
                await self.lapse()
                pause = await self._until_next()
            except Exception:
                log.exception("the watch for silent nodes failed")
            await asyncio.sleep(pause)

    async def lapse(self) -> list[str]:
        """Mark that the service is there, lapse every node whose deadline is over and return their ids.

        Both are one transaction, in this order: nobody lapses at a deadline from before an absence.
        """
        now = self._clock()

        async def work(session: AsyncSession) -> list[str]:
            await self._presence.mark(session, now)
            query = select(NodeRow).where(NodeRow.deadline <= now).order_by(NodeRow.id)  # all lock in this order
            silent = list(await session.scalars(query.with_for_update()))
            for node in silent:
                reason = f"silent since its deadline {node.deadline:%Y-%m-%dT%H:%M:%SZ}"
                node.deadline = None
                if Standing(node.standing).stands:
                    await self._ledger.change(session, node, Standing.LAPSED, actor="verifier", reason=reason, now=now)
            return [node.id for node in silent]

        if not await self._due(now):
            return []
        lapsed = await self._store.write(work)
        if lapsed:
            self._ledger.announce()
        return lapsed

    async def _due(self, now: datetime) -> bool:
        async with self._store.read() as session:
            due = await self._presence.due(session, now)  # at each look, for it remembers what it saw
            deadline = await _next_deadline(session)
            return due or (deadline is not None and deadline <= now)

    async def _until_next(self) -> float:
        longest = min(LONGEST_SLEEP, self._presence.beat.total_seconds())
        async with self._store.read() as session:
            deadline = await _next_deadline(session)
        if deadline is None:
            return longest
        left = (deadline - self._clock()).total_seconds()
        return min(max(left, SHORTEST_SLEEP), longest)


async def _next_deadline(session: AsyncSession) -> datetime | None:
    query = select(NodeRow.deadline).where(NodeRow.deadline.is_not(None)).order_by(NodeRow.deadline).limit(1)
    return await session.scalar(query)
