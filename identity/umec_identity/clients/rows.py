"""Clients as rows: one each, with its public keys."""

from datetime import datetime

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from umec_core.store import Timestamp
from umec_identity.rows import Base

__all__ = ["ClientRow"]


class ClientRow(Base):
    """A registered client; lists are JSON."""

    __tablename__ = "clients"

    client_id: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    tenant: Mapped[str | None] = mapped_column(Text)
    node: Mapped[str | None] = mapped_column(Text)
    instance: Mapped[str | None] = mapped_column(Text)
    jwks: Mapped[str] = mapped_column(Text)
    scopes: Mapped[str] = mapped_column(Text)
    resources: Mapped[str] = mapped_column(Text)
    binding: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Timestamp)
