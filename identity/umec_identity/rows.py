"""The base of all tables, the audit log's rows, and identifiers that were used and may not be used again."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final, cast

from sqlalchemy import LargeBinary, Table, delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from umec_core.audit import AuditMixin
from umec_core.store import Timestamp
from umec_identity.errors import AssertionReplayed, ChallengeInvalid, PossessionReplayed

__all__ = ["AuditRow", "Base", "Used", "UsedRow", "consume", "consume_all", "forget_used", "use_up", "use_up_all"]


class Base(DeclarativeBase):
    """The base of this service's tables."""


class AuditRow(AuditMixin, Base):
    """An entry of the audit log."""

    __tablename__ = "audit"


class UsedRow(Base):
    """Something that is good once: an assertion, a proof, a challenge. Kept until it is no longer valid anyway."""

    __tablename__ = "used"

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    until: Mapped[datetime] = mapped_column(Timestamp, index=True)


_used: Final = cast("Table", UsedRow.__table__)


class Used:
    """One thing that is used up by a request: (`kind`, `owner`, `jti`), until it is no longer valid anyway."""

    __slots__ = ("digest", "kind", "until")

    def __init__(self, kind: str, owner: str, jti: str, *, until: datetime) -> None:
        self.kind = kind
        self.digest = hashlib.sha256(f"{kind}|{len(owner)}|{owner}|{jti}".encode()).digest()
        self.until = until


async def consume(session: AsyncSession, used: Used) -> bool:
    """Remember that something was used, in the caller's transaction; False if it was used before."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = insert(_used).values(digest=used.digest, until=used.until)
    added = await session.execute(row.on_conflict_do_nothing().returning(_used.c.digest))
    return added.first() is not None


async def consume_all(session: AsyncSession, used: Sequence[Used]) -> frozenset[bytes]:
    """Remember that many things were used, in the caller's transaction; returns the digests that are new."""
    if not used:
        return frozenset()
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(_used).on_conflict_do_nothing().returning(_used.c.digest)
    rows = {one.digest: {"digest": one.digest, "until": one.until} for one in used}
    return frozenset(await session.scalars(statement, list(rows.values())))


async def forget_used(session: AsyncSession, now: datetime) -> None:
    """Forget what is no longer valid anyway."""
    await session.execute(delete(UsedRow).where(UsedRow.until < now))


async def use_up(session: AsyncSession, used: tuple[Used, ...]) -> None:
    """Write what a request used, in the caller's transaction; raises if any of it was used before."""
    for one in used:
        if not await consume(session, one):
            raise _replayed(one)


async def use_up_all(
    session: AsyncSession, requests: Sequence[tuple[Used, ...]]
) -> Sequence[AssertionReplayed | ChallengeInvalid | PossessionReplayed | None]:
    """Write what several requests used, in the caller's transaction; returns for each its refusal, or None.

    What two of them used is the first one's.
    """
    new = await consume_all(session, [one for used in requests for one in used])
    owner: dict[bytes, int] = {}
    for number, used in enumerate(requests):
        for one in used:
            owner.setdefault(one.digest, number)
    return [
        next((_replayed(one) for one in used if one.digest not in new or owner[one.digest] != number), None)
        for number, used in enumerate(requests)
    ]


def _replayed(used: Used) -> AssertionReplayed | ChallengeInvalid | PossessionReplayed:
    if used.kind == "challenge":
        return ChallengeInvalid("the challenge was used before", advice="POST /oauth2/challenge")
    if used.kind == "possession":
        return PossessionReplayed("the proof of possession was used before")
    return AssertionReplayed("the assertion was used before", advice="make a new one for every request")
