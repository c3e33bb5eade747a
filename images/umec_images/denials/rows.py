"""Rows of the deny list."""

from datetime import datetime

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from umec_core.store import Timestamp
from umec_images.authority.rows import AuthorityBase
from umec_images.oci.version import MAX_VERSION

__all__ = ["DenialRow", "DenyListRow", "MinimumRow"]


class DenialRow(AuthorityBase):
    """One digest that is denied now."""

    __tablename__ = "denied_images"

    digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    reason: Mapped[str] = mapped_column(String(500))
    actor: Mapped[str] = mapped_column(String(255))
    denied_at: Mapped[datetime] = mapped_column(Timestamp)


class MinimumRow(AuthorityBase):
    """The minimum version of one repository."""

    __tablename__ = "minimum_versions"

    repository: Mapped[str] = mapped_column(String(255), primary_key=True)
    version: Mapped[str] = mapped_column(String(MAX_VERSION))
    reason: Mapped[str] = mapped_column(String(500))
    actor: Mapped[str] = mapped_column(String(255))
    set_at: Mapped[datetime] = mapped_column(Timestamp)


class DenyListRow(AuthorityBase):
    """The version of the whole list: one row, of which the number only ever grows."""

    __tablename__ = "deny_list"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int] = mapped_column(BigInteger)
