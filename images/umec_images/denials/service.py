"""The deny list: rows that outlive a restart, a version that counts changes, and what is denied now at hand."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.clock import Clock
from umec_core.store import Store
from umec_images.authority.journal import Journal
from umec_images.denials.rows import DenialRow, DenyListRow
from umec_images.errors import DenialExists, DenialUnknown
from umec_images.oci.reference import check_digest
from umec_images.promotion.evidence import DenyList

__all__ = ["Denial", "Denials"]


@dataclass(frozen=True, slots=True)
class Denial:
    """A digest that is denied: why, by whom, and since when."""

    digest: str
    reason: str
    actor: str
    denied_at: datetime


class Denials:
    """Denies digests and lifts that again; each change is in the audit log, in the same transaction."""

    def __init__(self, store: Store, journal: Journal, clock: Clock, current: DenyList) -> None:
        """Only `open` calls this: `current` is what the store holds."""
        self._store = store
        self._journal = journal
        self._clock = clock
        self._current = current
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, store: Store, journal: Journal, clock: Clock) -> "Denials":
        """Read the list that the images service's database holds."""
        version, denials = await _load(store)
        return cls(store, journal, clock, DenyList(version, frozenset(each.digest for each in denials)))

    def current(self) -> DenyList:
        """Return what is denied now: a change counts before `deny` and `allow` return."""
        return self._current

    async def listing(self) -> tuple[int, list[Denial]]:
        """Return the version of the list, and all denials."""
        return await _load(self._store)

    async def deny(self, actor: str, digest: str, reason: str) -> DenyList:
        """Deny a digest (`sha256:<hex>`); returns the new list once that is durable. Raises DenialExists."""
        now = self._clock()

        async def work(session: AsyncSession) -> None:
            if await session.get(DenialRow, digest) is not None:
                raise DenialExists(f"{digest} is denied already")
            session.add(DenialRow(digest=digest, reason=reason, actor=actor, denied_at=now))

        return await self._change(check_digest(digest), actor, "image-denied", work, {"reason": reason})

    async def allow(self, actor: str, digest: str) -> DenyList:
        """Lift the denial of a digest; returns the new list once that is durable. Raises DenialUnknown."""

        async def work(session: AsyncSession) -> None:
            row = await session.get(DenialRow, digest)
            if row is None:
                raise DenialUnknown(f"{digest} is not denied")
            await session.delete(row)

        return await self._change(check_digest(digest), actor, "image-allowed", work, {})

    async def _change(
        self,
        digest: str,
        actor: str,
        action: str,
        work: Callable[[AsyncSession], Awaitable[None]],
        facts: dict[str, str],
    ) -> DenyList:
        async def change(session: AsyncSession) -> None:
            # The version first: its row lets one transaction at a time go on.
            grown = update(DenyListRow).values(version=DenyListRow.version + 1).returning(DenyListRow.version)
            version = (await session.execute(grown)).scalar_one()
            await work(session)
            await self._journal.append(session, actor, action, digest, {**facts, "version": version})

        async with self._turn:
            try:
                await self._store.write(change)
            finally:
                version, denials = await _load(self._store)
                self._current = DenyList(version, frozenset(each.digest for each in denials))
            return self._current


async def _load(store: Store) -> tuple[int, list[Denial]]:
    async with store.read() as session:
        version = (await session.scalars(select(DenyListRow.version))).one()
        rows = await session.scalars(select(DenialRow).order_by(DenialRow.digest))
        return version, [Denial(row.digest, row.reason, row.actor, row.denied_at) for row in rows]
