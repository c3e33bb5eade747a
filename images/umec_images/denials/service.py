"""The deny list: rows that outlive a restart, a version that counts changes, and what is denied now at hand.

Digests are denied and allowed again. The minimum version of a repository only rises, unless who sets it says that it
may fall.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from umec_core.clock import Clock
from umec_core.store import Store
from umec_images.authority.journal import Journal
from umec_images.denials.rows import DenialRow, DenyListRow, MinimumRow
from umec_images.errors import DenialExists, DenialUnknown, DenyListUnread, MinimumFalls
from umec_images.oci.reference import check_digest, check_repository
from umec_images.oci.version import Version, parse_version
from umec_images.promotion.denylist import DenyList

__all__ = ["Denial", "Denials", "Listing", "Minimum"]

READ_EVERY: Final = 1.0
"""Seconds between attempts to read a list that could not be read after a change."""

log = structlog.get_logger("umec.denials")


@dataclass(frozen=True, slots=True)
class Denial:
    """A digest that is denied: why, by whom, and since when."""

    digest: str
    reason: str
    actor: str
    denied_at: datetime


@dataclass(frozen=True, slots=True)
class Minimum:
    """The lowest version of a repository that may start: why, by whom, and since when."""

    repository: str
    version: Version
    reason: str
    actor: str
    set_at: datetime


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything that is denied, and the version of the whole list."""

    version: int
    denials: tuple[Denial, ...]
    minimums: tuple[Minimum, ...]

    def current(self) -> DenyList:
        """Return what decides."""
        return DenyList(
            self.version,
            frozenset(each.digest for each in self.denials),
            {each.repository: each.version for each in self.minimums},
        )


Work = Callable[[AsyncSession], Awaitable[tuple[str, dict[str, str | None]]]]
"""A change, which returns the action and the facts for the audit log."""


class Denials:
    """Changes the deny list; each change is in the audit log, in the same transaction."""

    def __init__(self, store: Store, journal: Journal, clock: Clock, current: DenyList) -> None:
        """Only `open` calls this: `current` is what the store holds."""
        self._store = store
        self._journal = journal
        self._clock = clock
        self._current: DenyList | None = current
        self._turn = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, store: Store, journal: Journal, clock: Clock) -> "Denials":
        """Read the list that the images service's database holds."""
        return cls(store, journal, clock, (await _load(store)).current())

    def current(self) -> DenyList:
        """Return what is denied now: a change counts before the method that makes it returns.

        Raises DenyListUnread where a change may have been made and could not be read yet.
        """
        if self._current is None:
            raise DenyListUnread(
                "the deny list changed, and could not be read yet", advice="Its database is in trouble."
            )
        return self._current

    async def close(self) -> None:
        """Stop trying to read the list."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    async def listing(self) -> Listing:
        """Return all of it, with reasons."""
        return await _load(self._store)

    async def deny(self, actor: str, digest: str, reason: str) -> DenyList:
        """Deny a digest (`sha256:<hex>`); returns the new list once that is durable. Raises DenialExists."""
        now = self._clock()

        async def work(session: AsyncSession) -> tuple[str, dict[str, str | None]]:
            if await session.get(DenialRow, digest) is not None:
                raise DenialExists(f"{digest} is denied already")
            session.add(DenialRow(digest=digest, reason=reason, actor=actor, denied_at=now))
            return "image-denied", {"reason": reason}

        return await self._change(check_digest(digest), actor, work)

    async def allow(self, actor: str, digest: str) -> DenyList:
        """Lift the denial of a digest; returns the new list once that is durable. Raises DenialUnknown."""

        async def work(session: AsyncSession) -> tuple[str, dict[str, str | None]]:
            row = await session.get(DenialRow, digest)
            if row is None:
                raise DenialUnknown(f"{digest} is not denied")
            await session.delete(row)
            return "image-allowed", {}

        return await self._change(check_digest(digest), actor, work)

    async def set_minimum(
        self, actor: str, repository: str, minimum: Version | None, reason: str, *, lower: bool = False
    ) -> DenyList:
        """Set the minimum version of a repository; returns the new list once that is durable.

        Raises MinimumFalls where it would fall (None: to no minimum) and `lower` does not say that it may. A minimum
        that is the one in force changes nothing.
        """
        now = self._clock()
        current = self.current()
        if current.minimums.get(check_repository(repository)) == minimum:
            return current

        async def work(session: AsyncSession) -> tuple[str, dict[str, str | None]]:
            row = await session.get(MinimumRow, repository)
            before = None if row is None else parse_version(row.version)
            falls = before is not None and (minimum is None or minimum < before)
            if falls and not lower:
                raise MinimumFalls(f"the minimum of {repository} is {before}", advice="Say --lower if it is to fall.")
            await session.execute(delete(MinimumRow).where(MinimumRow.repository == repository))
            if minimum is not None:
                session.add(
                    MinimumRow(repository=repository, version=minimum.text, reason=reason, actor=actor, set_at=now)
                )
            action = "image-minimum-lowered" if falls else "image-minimum-raised"
            return action, {"minimum": _text(minimum), "before": _text(before), "reason": reason}

        return await self._change(repository, actor, work)

    async def _change(self, subject: str, actor: str, work: Work) -> DenyList:
        async def change(session: AsyncSession) -> None:
            # The version first: its row lets one transaction at a time go on.
            grown = update(DenyListRow).values(version=DenyListRow.version + 1).returning(DenyListRow.version)
            version = (await session.execute(grown)).scalar_one()
            action, facts = await work(session)
            await self._journal.append(session, actor, action, subject, {**facts, "version": version})

        async with self._turn:
            try:
                await self._store.write(change)
            finally:
                await self._read()
            return self.current()

    async def _read(self) -> None:
        """Read what is denied now; where that fails, nothing is judged until it was read."""
        try:
            self._current = (await _load(self._store)).current()
        except BaseException:
            self._current = None
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._keep_reading())
            raise

    async def _keep_reading(self) -> None:
        while self._current is None:
            await asyncio.sleep(READ_EVERY)
            async with self._turn:
                try:
                    await self._read()
                except Exception:
                    log.exception("the deny list cannot be read: no image is judged")


async def _load(store: Store) -> Listing:
    async with store.read() as session:
        version = (await session.scalars(select(DenyListRow.version))).one()
        denied = await session.scalars(select(DenialRow).order_by(DenialRow.digest))
        denials = tuple(Denial(row.digest, row.reason, row.actor, row.denied_at) for row in denied)
        lowest = await session.scalars(select(MinimumRow).order_by(MinimumRow.repository))
        minimums = tuple(
            Minimum(row.repository, parse_version(row.version), row.reason, row.actor, row.set_at) for row in lowest
        )
        return Listing(version, denials, minimums)


def _text(version: Version | None) -> str | None:
    return None if version is None else version.text
