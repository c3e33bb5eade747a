"""Rows of MEC hosts, and of the networks that tenants have on them."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from umec_core.store import Timestamp
from umec_platform.store import Base, Name

__all__ = ["HostRow", "NetworkRow"]


class HostRow(Base):
    """A MEC host: the node that is attested, the socket of its netd, and what the node was last said to be worth."""

    __tablename__ = "hosts"

    id: Mapped[str] = mapped_column(Name, primary_key=True)
    node: Mapped[str] = mapped_column(Name, unique=True)
    netd: Mapped[str]
    standing: Mapped[str | None]
    generation: Mapped[int | None]
    changed_at: Mapped[datetime | None] = mapped_column(Timestamp)
    created_at: Mapped[datetime] = mapped_column(Timestamp)


class NetworkRow(Base):
    """The subnet that a tenant has on a host, as netd gave it out."""

    __tablename__ = "networks"

    host: Mapped[str] = mapped_column(ForeignKey(HostRow.id), primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    subnet: Mapped[str]
