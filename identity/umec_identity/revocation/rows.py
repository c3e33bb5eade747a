"""Tokens and clients that are refused although their time is not over."""

from datetime import datetime

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from umec_core.store import Timestamp
from umec_identity.rows import Base

__all__ = ["DeniedRow"]


class DeniedRow(Base):
    """A denied token (`kind` "jti") or all tokens of a client of registrations up to `since` (`kind` "client")."""

    __tablename__ = "denied"

    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    since: Mapped[datetime] = mapped_column(Timestamp)
    until: Mapped[datetime] = mapped_column(Timestamp, index=True)
