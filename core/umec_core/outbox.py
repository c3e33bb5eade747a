"""The transactional outbox: what has to happen outside is a row of the transaction that decides it.

A `Dispatcher` hands the rows to their handlers in the order of their numbers, at least once each: a row counts as
delivered when its handler returned and that was committed. A handler that raises is called again, with growing pauses,
and the rows behind it wait, so that "withdraw" never overtakes "install". Handlers are therefore idempotent.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy import Text, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from umec_core.clock import Clock
from umec_core.errors import Invalid, UmecError
from umec_core.store import RowId, Store, Timestamp, serialise

__all__ = ["Dispatcher", "Handler", "OutboxMixin", "OutboxTopicUnknown", "put"]

R = TypeVar("R", bound="OutboxMixin")
Handler = Callable[[dict[str, Any]], Awaitable[None]]

BATCH: Final = 100
"""Rows that are read at once."""

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts for the same row; doubled after each."""

POLL: Final = 5.0
"""Seconds after which a dispatcher looks by itself: rows of another process do not kick it."""

log = structlog.get_logger("umec.outbox")


class OutboxTopicUnknown(Invalid):
    """A row has a topic that nobody handles: it stays, and holds up those behind it, until somebody does."""

    code = "outbox-topic-unknown"


class OutboxMixin:
    """The columns of an outbox table."""

    seq: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    topic: Mapped[str]
    payload: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Timestamp)
    delivered_at: Mapped[datetime | None] = mapped_column(Timestamp, index=True)


async def put(session: AsyncSession, row_type: type[R], topic: str, payload: Mapping[str, Any], now: datetime) -> R:
    """Add a row in the caller's transaction; the caller kicks its dispatcher after COMMIT."""
    await serialise(session, f"outbox:{row_type.__name__}")
    row = row_type()
    row.topic, row.payload = topic, json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
    row.created_at, row.delivered_at = now, None
    session.add(row)
    await session.flush()
    return row


class Dispatcher:
    """Delivers the rows of one outbox table, one after the other. One at a time for each table."""

    def __init__(
        self, store: Store, row_type: type[OutboxMixin], handlers: Mapping[str, Handler], clock: Clock
    ) -> None:
        self._store = store
        self._row_type = row_type
        self._handlers = dict(handlers)
        self._clock = clock
        self._news = asyncio.Event()

    def kick(self) -> None:
        """Say that there are new rows."""
        self._news.set()

    async def run(self) -> None:
        """Deliver until cancelled. What was undelivered at the start comes first."""
        pause = FIRST_PAUSE
        while True:
            self._news.clear()
            try:
                await self.drain()
            except Exception as error:  # noqa: BLE001 - whatever a handler raises, the row stays and is tried again
                code = error.code if isinstance(error, UmecError) else type(error).__name__
                log.warning("delivery failed", outbox=self._row_type.__name__, code=code, again_in=pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                pause = FIRST_PAUSE
                await self._wait()

    async def drain(self) -> None:
        """Deliver what is undelivered now; raises what a handler raised."""
        while rows := await self._undelivered():
            for row in rows:
                await self._deliver(row)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(POLL):
                await self._news.wait()
        except TimeoutError:
            return

    async def _undelivered(self) -> list[OutboxMixin]:
        kind = self._row_type
        async with self._store.read() as session:
            query = select(kind).where(kind.delivered_at.is_(None)).order_by(kind.seq).limit(BATCH)
            return list(await session.scalars(query))

    async def _deliver(self, row: OutboxMixin) -> None:
        handler = self._handlers.get(row.topic)
        if handler is None:
            raise OutboxTopicUnknown(f"nobody handles the topic {row.topic!r} of row {row.seq}")
        await handler(json.loads(row.payload))
        kind, seq, now = self._row_type, row.seq, self._clock()

        async def mark(session: AsyncSession) -> None:
            await session.execute(update(kind).where(kind.seq == seq).values(delivered_at=now))

        await self._store.write(mark)
