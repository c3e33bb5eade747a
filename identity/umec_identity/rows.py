"""The base of all tables, the audit log's rows, and identifiers that were used and may not be used again."""

import hashlib
from datetime import datetime
from typing import Final, cast

from sqlalchemy import LargeBinary, Table, delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from umec_core.audit import AuditMixin
from umec_core.store import Timestamp
from umec_identity.errors import AssertionReplayed, ChallengeInvalid, PossessionReplayed

__all__ = ["AuditRow", "Base", "Used", "UsedRow", "consume", "forget_used", "use_up"]


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


async def forget_used(session: AsyncSession, now: datetime) -> None:
    """Forget what is no longer valid anyway."""
    await session.execute(delete(UsedRow).where(UsedRow.until < now))


async def use_up(session: AsyncSession, used: tuple[Used, ...]) -> None:
    """Write what a request used, in the caller's transaction; raises if any of it was used before."""
    for one in used:
        if not await consume(session, one):
            if one.kind == "challenge":
                raise ChallengeInvalid("the challenge was used before", advice="POST /oauth2/challenge")
            if one.kind == "possession":
                raise PossessionReplayed("the proof of possession was used before")
            raise AssertionReplayed("the assertion was used before", advice="make a new one for every request")
