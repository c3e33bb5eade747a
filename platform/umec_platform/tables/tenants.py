"""Rows of tenants."""

from datetime import datetime

from sqlalchemy import JSON
from sqlalchemy.orm import Mapped, mapped_column

from umec_core.store import Timestamp
from umec_platform.store import Base, Name

__all__ = ["TenantRow"]


class TenantRow(Base):
    """A tenant, with the address prefixes and host names that the operator granted to it."""

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(Name, primary_key=True)
    name: Mapped[str]
    addresses: Mapped[list[str]] = mapped_column(JSON)
    domains: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(Timestamp)
