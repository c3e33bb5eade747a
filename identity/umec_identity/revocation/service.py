"""The deny-list: by token identifier, and by client. An entry lives no longer than what it denies.

It keys on `jti`: the text of a token could be spelt in another way, its identifier is signed.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.clock import Clock
from umec_core.jose import SKEW
from umec_core.store import Store
from umec_core.tokens import MAX_LIFE
from umec_identity.revocation.rows import DeniedRow

__all__ = ["Revocation"]

LONGEST: Final = MAX_LIFE + 2 * SKEW
"""How long a denied client's tokens can live."""


class Revocation:
    """The deny-list, kept in memory for the checks of every request and in rows for the next start."""

    def __init__(self, store: Store, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._tokens: frozenset[str] = frozenset()
        self._clients: dict[str, float] = {}

    async def refresh(self) -> None:
        """Read the rows anew and drop those that are over."""
        now = self._clock()

        async def work(session: AsyncSession) -> list[DeniedRow]:
            await session.execute(delete(DeniedRow).where(DeniedRow.until < now))
            return list(await session.scalars(select(DeniedRow)))

        rows = await self._store.write(work)
        self._tokens = frozenset(row.name for row in rows if row.kind == "jti")
        self._clients = {row.name: row.since.timestamp() for row in rows if row.kind == "client"}

    def denied(self, claims: Mapping[str, Any]) -> bool:
        """Whether verified claims belong to a denied token, or to a client that was denied after their `iat`.

        `iat` counts whole seconds, so the second of the denial is denied too.
        """
        since = self._clients.get(claims["client_id"])
        return claims["jti"] in self._tokens or (since is not None and claims["iat"] <= since)

    async def deny_token(self, session: AsyncSession, jti: str, *, until: datetime, now: datetime) -> None:
        """Deny a token in the caller's transaction; `refresh` afterwards."""
        await session.merge(DeniedRow(kind="jti", name=jti, since=now, until=until))

    async def deny_client(self, session: AsyncSession, client_id: str, *, now: datetime, since: datetime) -> None:
        """Deny all tokens of a client issued up to `since` in the caller's transaction; `refresh` afterwards."""
        await session.merge(DeniedRow(kind="client", name=client_id, since=since, until=now + LONGEST))
