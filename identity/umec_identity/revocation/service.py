"""The deny-list: by token identifier, and by client. An entry lives no longer than what it denies.

It keys on `jti`: the text of a token could be spelt in another way, its identifier is signed. A removed client is
denied by the time of its registration, which its tokens carry: one that is registered again under its old identifier
has good tokens at once, and the old ones stay refused.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.clock import Clock
from umec_core.jose import SKEW
from umec_core.store import Store
from umec_core.tokens import MAX_LIFE
from umec_identity.revocation.rows import DeniedRow

__all__ = ["Revocation", "microseconds"]

LONGEST: Final = MAX_LIFE + 2 * SKEW
"""How long a denied client's tokens can live."""


EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(time: datetime) -> int:
    """Return a time as tokens name a registration: exactly, where a number of seconds would be rounded."""
    return (time - EPOCH) // timedelta(microseconds=1)


class Revocation:
    """The deny-list, kept in memory for the checks of every request and in rows for the next start."""

    def __init__(self, store: Store, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._tokens: frozenset[str] = frozenset()
        self._clients: dict[str, int] = {}

    async def refresh(self) -> None:
        """Read the rows anew and drop those that are over."""
        now = self._clock()

        async def work(session: AsyncSession) -> list[DeniedRow]:
            await session.execute(delete(DeniedRow).where(DeniedRow.until < now))
            return list(await session.scalars(select(DeniedRow)))

        rows = await self._store.write(work)
        self._tokens = frozenset(row.name for row in rows if row.kind == "jti")
        self._clients = {row.name: microseconds(row.since) for row in rows if row.kind == "client"}

    def denied(self, claims: Mapping[str, Any]) -> bool:
        """Whether verified claims belong to a denied token, or to a registration of a client that was removed.

        A node's tokens name no registration.
        """
        if claims["jti"] in self._tokens:
            return True
        since, registration = self._clients.get(claims["client_id"]), claims.get("registration")
        if since is None or registration is None:
            return False
        return not isinstance(registration, int) or registration <= since

    async def deny_token(self, session: AsyncSession, jti: str, *, until: datetime, now: datetime) -> None:
        """Deny a token in the caller's transaction; `refresh` afterwards."""
        await session.merge(DeniedRow(kind="jti", name=jti, since=now, until=until))

    async def deny_client(self, session: AsyncSession, client_id: str, *, now: datetime, registered: datetime) -> None:
        """Deny all tokens of a client's registration in the caller's transaction; `refresh` afterwards."""
        await session.merge(DeniedRow(kind="client", name=client_id, since=registered, until=now + LONGEST))

    async def after_denial(self, session: AsyncSession, client_id: str, now: datetime) -> datetime:
        """Return when a new registration of a client begins: now, and in any case after one that is denied."""
        denied = await session.get(DeniedRow, ("client", client_id))
        return now if denied is None else max(now, denied.since + timedelta(microseconds=1))
