"""Rows of the deny list."""

from datetime import datetime

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from umec_core.store import Timestamp
from umec_images.authority.rows import AuthorityBase

__all__ = ["DenialRow", "DenyListRow"]


class DenialRow(AuthorityBase):
    """One digest that is denied now."""

    __tablename__ = "denied_images"

    digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    reason: Mapped[str] = mapped_column(String(500))
    actor: Mapped[str] = mapped_column(String(255))
    denied_at: Mapped[datetime] = mapped_column(Timestamp)


class DenyListRow(AuthorityBase):
    """The version of the whole list: one row, of which the number only ever grows."""

    __tablename__ = "deny_list"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int] = mapped_column(BigInteger)
