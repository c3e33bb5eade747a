"""Rows of the transparency log."""

from datetime import datetime

from sqlalchemy import BigInteger, LargeBinary, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from umec_core.audit import AuditMixin
from umec_core.store import Timestamp

__all__ = ["AuditRow", "AuthorityBase", "CheckpointRow", "EntryRow"]


class AuthorityBase(DeclarativeBase):
    """Tables of the signing authority."""


class EntryRow(AuthorityBase):
    """One leaf of the log, in the order of the tree."""

    __tablename__ = "sigstore_entries"

    index: Mapped[int] = mapped_column("log_index", BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(32))
    version: Mapped[str] = mapped_column(String(16))
    body: Mapped[bytes] = mapped_column(LargeBinary)
    leaf: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 leaf hash (RFC 6962) in hex; unique, so that the same entry sent twice has one place."""
    logged_at: Mapped[datetime] = mapped_column(Timestamp)


class CheckpointRow(AuthorityBase):
    """The newest root that this log signed: one row, by which a start notices a rewritten log."""

    __tablename__ = "sigstore_checkpoint"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size: Mapped[int] = mapped_column(BigInteger)
    root: Mapped[str] = mapped_column(String(64))


class AuditRow(AuditMixin, AuthorityBase):
    """One entry of the audit log."""

    __tablename__ = "images_audit"
