"""The highest version that was ever promoted to each stage of a repository: what is promoted next is no older."""

from datetime import datetime
from typing import Protocol

from sqlalchemy import String
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from umec_core.clock import Clock
from umec_core.store import Store, Timestamp
from umec_images.authority.rows import AuthorityBase
from umec_images.oci.version import MAX_VERSION, Version, parse_version

__all__ = ["History", "PromotedVersionRow", "StoredHistory"]


class History(Protocol):
    """What a promoter remembers of versions."""

    async def highest(self, repository: str, stage: str) -> Version | None:
        """Return the highest version that was promoted; None where none was."""
        ...

    async def reached(self, repository: str, stage: str, version: Version) -> None:
        """Remember a version that is about to be promoted, unless a higher one was."""
        ...


class PromotedVersionRow(AuthorityBase):
    """The highest version at one stage of one repository."""

    __tablename__ = "promoted_versions"

    repository: Mapped[str] = mapped_column(String(255), primary_key=True)
    stage: Mapped[str] = mapped_column(String(63), primary_key=True)
    version: Mapped[str] = mapped_column(String(MAX_VERSION))
    promoted_at: Mapped[datetime] = mapped_column(Timestamp)


class StoredHistory:
    """Keeps it in the images service's database."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def highest(self, repository: str, stage: str) -> Version | None:
        """Return the highest version that was promoted; None where none was."""
        async with self._store.read() as session:
            row = await session.get(PromotedVersionRow, (repository, stage))
            return None if row is None else parse_version(row.version)

    async def reached(self, repository: str, stage: str, version: Version) -> None:
        """Remember a version that is about to be promoted, unless a higher one was; returns once that is durable."""
        now = self._clock()

        async def work(session: AsyncSession) -> None:
            row = await session.get(PromotedVersionRow, (repository, stage))
            if row is None:
                row = PromotedVersionRow(repository=repository, stage=stage, version=version.text, promoted_at=now)
                session.add(row)
            elif parse_version(row.version) < version:
                row.version, row.promoted_at = version.text, now

        await self._store.write(work)
