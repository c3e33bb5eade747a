"""What is written down before a promotion is made: that it was approved, and how far its stage has come.

The highest version that was ever promoted to each stage of a repository stays: what is promoted next is no older.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import String
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from umec_core.clock import Clock
from umec_core.store import Store, Timestamp
from umec_images.authority.journal import Journal
from umec_images.authority.rows import AuthorityBase
from umec_images.oci.version import MAX_VERSION, Version, parse_version
from umec_images.statements import Summary

__all__ = ["Approval", "History", "PromotedVersionRow", "StoredHistory"]


@dataclass(frozen=True, slots=True)
class Approval:
    """A promotion that is about to be made, by a client."""

    client: str
    summary: Summary
    version: Version | None
    rollback: str | None
    """Why an operator goes back to an earlier version; None where nobody does."""


class History(Protocol):
    """What a promoter remembers of versions."""

    async def highest(self, repository: str, stage: str) -> Version | None:
        """Return the highest version that was promoted; None where none was."""
        ...

    async def approved(self, approval: Approval) -> None:
        """Remember a promotion that is about to be made, and its version unless a higher one was promoted."""
        ...


class PromotedVersionRow(AuthorityBase):
    """The highest version at one stage of one repository."""

    __tablename__ = "promoted_versions"

    repository: Mapped[str] = mapped_column(String(255), primary_key=True)
    stage: Mapped[str] = mapped_column(String(63), primary_key=True)
    version: Mapped[str] = mapped_column(String(MAX_VERSION))
    promoted_at: Mapped[datetime] = mapped_column(Timestamp)


class StoredHistory:
    """Keeps it in the images service's database and audit log."""

    def __init__(self, store: Store, journal: Journal, clock: Clock) -> None:
        self._store = store
        self._journal = journal
        self._clock = clock

    async def highest(self, repository: str, stage: str) -> Version | None:
        """Return the highest version that was promoted; None where none was."""
        async with self._store.read() as session:
            row = await session.get(PromotedVersionRow, (repository, stage))
            return None if row is None else parse_version(row.version)

    async def approved(self, approval: Approval) -> None:
        """Remember a promotion that is about to be made; returns once version and log entry are durable."""
        summary, version = approval.summary, approval.version
        facts: dict[str, str] = {"stage": summary.stage, "builder": summary.builder}
        if version is not None:
            facts["version"] = version.text
        if approval.rollback is not None:
            facts["rollback"] = approval.rollback

        async def work(session: AsyncSession) -> None:
            if version is not None:
                await self._reach(session, summary.repository, summary.stage, version)
            subject = f"{summary.repository}@{summary.digest}"
            await self._journal.append(session, approval.client, "image-promotion-approved", subject, facts)

        await self._store.write(work)

    async def _reach(self, session: AsyncSession, repository: str, stage: str, version: Version) -> None:
        now = self._clock()
        row = await session.get(PromotedVersionRow, (repository, stage))
        if row is None:
            session.add(PromotedVersionRow(repository=repository, stage=stage, version=version.text, promoted_at=now))
        elif parse_version(row.version) < version:
            row.version, row.promoted_at = version.text, now
