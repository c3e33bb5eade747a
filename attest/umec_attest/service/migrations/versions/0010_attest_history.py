"""Rounds that changed something, and the evidence of those that contradicted."""

import sqlalchemy as sa
from alembic import op

from umec_core.store import RowId, Timestamp

revision = "attest_0010"
down_revision = "attest_0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "round",
        sa.Column("seq", RowId, primary_key=True, autoincrement=True),
        sa.Column("node", sa.String, nullable=False, index=True),
        sa.Column("at", Timestamp, nullable=False, index=True),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("verdict", sa.String, nullable=False),
        sa.Column("findings", sa.Text, nullable=False),
        sa.Column("standing", sa.String, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("reset_count", RowId, nullable=False),
        sa.Column("boot_log_sha256", sa.String, nullable=False),
        sa.Column("evidence_sha256", sa.String, nullable=False),
        sa.Column("reference_version", RowId, nullable=False),
        sa.Column("reference_sha256", sa.String, nullable=False),
        sa.Column("policy_sha256", sa.String, nullable=False),
    )
    op.create_table(
        "evidence",
        sa.Column("sha256", sa.String, primary_key=True),
        sa.Column("node", sa.String, nullable=False, index=True),
        sa.Column("boot_log_sha256", sa.String, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("kept_at", Timestamp, nullable=False, index=True),
    )
