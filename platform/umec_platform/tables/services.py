"""Rows of services, and of the subscriptions of applications."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from umec_core.store import Timestamp
from umec_platform.store import Base, Name

__all__ = ["ServiceRow", "SubscriptionRow"]


class ServiceRow(Base):
    """A service as its application described it (`document`), and whether the platform suspended it."""

    __tablename__ = "services"

    id: Mapped[str] = mapped_column(Name, primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    instance: Mapped[str] = mapped_column(ForeignKey("instances.id"), index=True)
    host: Mapped[str] = mapped_column(ForeignKey("hosts.id"), index=True)
    name: Mapped[str] = mapped_column(index=True)
    category: Mapped[str | None]
    document: Mapped[dict[str, Any]] = mapped_column(JSON)
    suspended: Mapped[bool]
    """The platform suspended it: its node fell."""
    withdrawn: Mapped[bool]
    """Nobody but its application sees it: its node is quarantined or revoked."""
    interval: Mapped[int | None]
    """Seconds between the heartbeats that the platform asked for."""
    heard_at: Mapped[datetime] = mapped_column(Timestamp)
    version: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(Timestamp)


class SubscriptionRow(Base):
    """A subscription of an instance, of the API `kind`: "service" (availability) or "support" (termination)."""

    __tablename__ = "subscriptions"

    id: Mapped[str] = mapped_column(Name, primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    instance: Mapped[str] = mapped_column(ForeignKey("instances.id"), index=True)
    kind: Mapped[str]
    document: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(Timestamp)
