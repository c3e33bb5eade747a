"""A small schema, and a real PostgreSQL for those tests that need one."""

import textwrap
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from umec_core.audit import AuditMixin
from umec_core.outbox import OutboxMixin
from umec_core.store import RowId, Timestamp
from umec_core.testing import temporary_postgresql

MIGRATION = textwrap.dedent("""
    import sqlalchemy as sa
    from alembic import op
    from umec_core.store import RowId, Timestamp

    revision = "a1"
    down_revision = None

    def upgrade():
        op.create_table(
            "thing",
            sa.Column("id", RowId, primary_key=True),
            sa.Column("name", sa.String, unique=True, nullable=False),
            sa.Column("at", Timestamp),
        )
        op.create_table(
            "outbox",
            sa.Column("seq", RowId, primary_key=True, autoincrement=True),
            sa.Column("topic", sa.String, nullable=False),
            sa.Column("payload", sa.Text, nullable=False),
            sa.Column("created_at", Timestamp, nullable=False),
            sa.Column("delivered_at", Timestamp),
        )
        op.create_table(
            "audit",
            sa.Column("index", RowId, primary_key=True, autoincrement=False),
            sa.Column("entry", sa.Text, nullable=False),
            sa.Column("leaf", sa.LargeBinary, nullable=False),
            sa.Column("at", Timestamp, nullable=False),
        )
""")


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "thing"
    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    at: Mapped[datetime | None] = mapped_column(Timestamp)


class Box(OutboxMixin, Base):
    __tablename__ = "outbox"


class Audit(AuditMixin, Base):
    __tablename__ = "audit"


@pytest.fixture(scope="session")
def schema() -> SimpleNamespace:
    """The row types, which a test cannot import from here."""
    return SimpleNamespace(Thing=Thing, Box=Box, Audit=Audit)


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "versions" / "a1.py").write_text(MIGRATION)
    return folder


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/db/test.db"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL that runs for these tests."""
    with temporary_postgresql() as url:
        yield url
