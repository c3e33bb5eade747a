"""Rows of the traffic and DNS rules of instances."""

from typing import Any

from sqlalchemy import JSON, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from umec_platform.store import Base, Name

__all__ = ["RuleRow"]


class RuleRow(Base):
    """A rule of an instance; `kind` is "traffic" or "dns". `refusal` is why its host last refused it."""

    __tablename__ = "rules"

    instance: Mapped[str] = mapped_column(ForeignKey("instances.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(Name, primary_key=True)
    rule: Mapped[str] = mapped_column(Name, primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    host: Mapped[str] = mapped_column(ForeignKey("hosts.id"), index=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSON)
    active: Mapped[bool]
    refusal: Mapped[str | None]
    version: Mapped[int]
