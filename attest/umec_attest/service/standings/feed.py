"""The standing feed: signed statements of what changed after a number, at once or when it happens."""

import asyncio
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from sqlalchemy import func, select

from umec_attest.service.errors import FeedBehind
from umec_attest.service.standings.ledger import TOPIC
from umec_attest.service.tables import NodeRow, StandingRow
from umec_attest.service.wire import instant
from umec_core.clock import Clock
from umec_core.events import Events
from umec_core.jose import sign_jwt
from umec_core.standing import STATEMENT_TYPE
from umec_core.store import Store

__all__ = ["MAX_WAIT", "StandingFeed"]

MAX_WAIT: Final = 5.0
"""Seconds that a request waits for news: well below the age at which an API refuses its view as stale."""

PAGE: Final = 250
"""Nodes in one statement: some 60 KB, so that a token stays within the limit of `umec_core.jose`."""

LOOK_AGAIN: Final = 1.0
"""Seconds until a waiting request looks by itself: changes by another replica wake nobody here."""


class StandingFeed:
    """Makes statements; the newest row of each node that changed after a number."""

    def __init__(
        self, store: Store, events: Events, key: EllipticCurvePrivateKey, *, issuer: str, clock: Clock
    ) -> None:
        self._store = store
        self._events = events
        self._key = key
        self._issuer = issuer
        self._clock = clock
        self._closing = False

    def close(self) -> None:
        """Answer those who wait, now: the service ends."""
        self._closing = True
        self._events.publish(TOPIC, {})

    async def statement(self, *, after: int, wait: float, node: str | None) -> str:
        """Return a signed statement: at once if there is news after `after`, else after `wait` seconds, empty.

        An empty one says "nothing changed until now", which is what keeps the view of an API fresh.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + min(max(wait, 0.0), MAX_WAIT)
        with self._events.subscription(TOPIC) as news:  # before the first look: a change in between is not missed
            while True:
                claims = await self._claims(after, node)
                left = end - loop.time()
                if claims["standings"] or left <= 0 or self._closing:
                    return sign_jwt(claims, self._key, typ=STATEMENT_TYPE)
                try:
                    async with asyncio.timeout(min(left, LOOK_AGAIN)):
                        await news.get()
                except TimeoutError:
                    continue

    async def _claims(self, after: int, node: str | None) -> dict[str, Any]:
        issued_at = self._clock().timestamp()  # before the look: the statement is not newer than what it says
        query = select(StandingRow).join(NodeRow, NodeRow.last_seq == StandingRow.seq).where(NodeRow.last_seq > after)
        if node is not None:
            query = query.where(NodeRow.id == node)
        query = query.order_by(NodeRow.last_seq).limit(PAGE)
        async with self._store.read() as session:
            end = await session.scalar(select(func.max(StandingRow.seq))) or 0  # first: rows up to here are all seen
            rows = list(await session.scalars(query))
        if after > end:
            raise FeedBehind(f"the feed ends at {end}, {after} is known: was an older database restored?")
        # A full page ends at its last row, and what changed behind it is the next page.
        last = rows[-1].seq if len(rows) == PAGE else max(end, rows[-1].seq if rows else 0)
        return {
            "iss": self._issuer,
            "iat": issued_at,
            "after": after,
            "last": last,
            "node": node,
            "standings": [_entry(row) for row in rows],
        }


def _entry(row: StandingRow) -> dict[str, Any]:
    return {
        "seq": row.seq,
        "node": row.node,
        "tenant": row.tenant,
        "standing": row.standing,
        "generation": row.generation,
        "changed_at": instant(row.changed_at),
    }
