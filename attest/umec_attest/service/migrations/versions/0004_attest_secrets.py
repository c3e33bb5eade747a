"""Secrets of nodes, encrypted under a key that is not in the database."""

import sqlalchemy as sa
from alembic import op

from umec_core.store import Timestamp

revision = "attest_0004"
down_revision = "attest_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "secret",
        sa.Column("node", sa.String, sa.ForeignKey("node.id"), primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("ek_sha256", sa.String, nullable=False),
        sa.Column("degraded", sa.Boolean, nullable=False),
        sa.Column("kept", sa.LargeBinary, nullable=False),
        sa.Column("set_by", sa.String, nullable=False),
        sa.Column("set_at", Timestamp, nullable=False),
        sa.Column("releases", sa.Integer, nullable=False),
        sa.Column("released_at", Timestamp),
    )
