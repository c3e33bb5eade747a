"""Rows of application instances and of the operations on them."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import JSON, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from umec_core.store import Timestamp
from umec_platform.store import Base, Name

__all__ = [
    "COMPLETED",
    "FAILED",
    "INSTANTIATE",
    "INSTANTIATED",
    "NOT_INSTANTIATED",
    "OPERATE",
    "PROCESSING",
    "STARTING",
    "TERMINATE",
    "InstanceRow",
    "OperationRow",
]

NOT_INSTANTIATED: Final = "NOT_INSTANTIATED"
INSTANTIATED: Final = "INSTANTIATED"
INSTANTIATE: Final = "INSTANTIATE"
TERMINATE: Final = "TERMINATE"
OPERATE: Final = "OPERATE"
"""Starting an instance again that should run (MEC 010-2: `changeStateTo` STARTED)."""
STARTING: Final = "STARTING"
PROCESSING: Final = "PROCESSING"
COMPLETED: Final = "COMPLETED"
FAILED: Final = "FAILED"


class InstanceRow(Base):
    """An instance of a package. `host` and `address` are there while it is; `busy` is its running operation."""

    __tablename__ = "instances"

    id: Mapped[str] = mapped_column(Name, primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    package: Mapped[str] = mapped_column(ForeignKey("packages.id"), index=True)
    name: Mapped[str | None]
    description: Mapped[str | None]
    host: Mapped[str | None] = mapped_column(ForeignKey("hosts.id"), index=True)
    address: Mapped[str | None]
    state: Mapped[str]
    ready: Mapped[bool]
    busy: Mapped[str | None] = mapped_column(Name)
    version: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(Timestamp)


class OperationRow(Base):
    """One run of an operation on an instance (MEC 010-2: an "operation occurrence")."""

    __tablename__ = "operations"
    __table_args__ = (Index("ix_operations_state", "state"),)

    id: Mapped[str] = mapped_column(Name, primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    instance: Mapped[str] = mapped_column(Name, index=True)
    operation: Mapped[str]
    state: Mapped[str]
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    code: Mapped[str | None]
    detail: Mapped[str | None]
    confirmed: Mapped[bool]
    started_at: Mapped[datetime] = mapped_column(Timestamp)
    entered_at: Mapped[datetime] = mapped_column(Timestamp)
