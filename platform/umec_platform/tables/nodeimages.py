"""Rows of node images: which one nodes should have, and what has become of it on each."""

from datetime import datetime
from typing import Final

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from umec_core.store import Timestamp
from umec_platform.store import Base, Name

__all__ = ["NodeImageAttemptRow", "NodeImageOrderRow", "NodeImageReportRow"]

Target: Final = String(len("image/") + 63 + len("/") + 63)
"""`image/TENANT/NAME` with the longest names that an order may have."""


class NodeImageOrderRow(Base):
    """An order, by whom it is for: `node/NODE`, or `image/TENANT/NAME` for all nodes of a tenant with that image.

    `manifest` and `kernel` are the digests of manifest.json and uki.efi; `attempt` rises when it is to be tried again.
    """

    __tablename__ = "node_image_orders"

    target: Mapped[str] = mapped_column(Target, primary_key=True)
    repository: Mapped[str]
    digest: Mapped[str] = mapped_column(Name)
    image: Mapped[str] = mapped_column(Name)
    version: Mapped[int]
    manifest: Mapped[str] = mapped_column(Name)
    kernel: Mapped[str] = mapped_column(Name)
    attempt: Mapped[int]
    ordered_by: Mapped[str]
    ordered_at: Mapped[datetime] = mapped_column(Timestamp)


class NodeImageAttemptRow(Base):
    """How often an image was ordered to be tried, wherever; it outlives its orders, as nodes remember what failed."""

    __tablename__ = "node_image_attempts"

    manifest: Mapped[str] = mapped_column(Name, primary_key=True)
    attempt: Mapped[int]


class NodeImageReportRow(Base):
    """What a node last said of its image: what runs, what starts, and how its last update stands."""

    __tablename__ = "node_image_reports"

    node: Mapped[str] = mapped_column(Name, primary_key=True)
    tenant: Mapped[str | None] = mapped_column(Name)
    image: Mapped[str | None] = mapped_column(Name)
    running: Mapped[int | None]
    confirmed: Mapped[int | None]
    phase: Mapped[str | None]
    version: Mapped[int | None]
    manifest: Mapped[str | None] = mapped_column(Name)
    digest: Mapped[str | None] = mapped_column(Name)
    code: Mapped[str | None]
    detail: Mapped[str]
    reported_at: Mapped[datetime] = mapped_column(Timestamp)
