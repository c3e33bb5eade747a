"""Rows of application packages."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from umec_core.store import Timestamp
from umec_platform.store import Base, Name

__all__ = ["PackageRow"]


class PackageRow(Base):
    """A package of a tenant: CREATED until its content is there, then ONBOARDED and unchangeable."""

    __tablename__ = "packages"
    __table_args__ = (UniqueConstraint("tenant", "app_d_id"),)

    id: Mapped[str] = mapped_column(Name, primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    app_d_id: Mapped[str | None] = mapped_column(Name)
    state: Mapped[str]
    enabled: Mapped[bool]
    appd: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    appd_sha256: Mapped[str | None]
    user_data: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    version: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(Timestamp)
