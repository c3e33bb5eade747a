"""The first tables of the attestation service."""

import sqlalchemy as sa
from alembic import op

from umec_core.store import RowId, Timestamp

revision = "attest_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ticket",
        sa.Column("secret_sha256", sa.LargeBinary, primary_key=True),
        sa.Column("node", sa.String, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("image", sa.String, nullable=False),
        sa.Column("ek_sha256", sa.String, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("expires_at", Timestamp, nullable=False),
        sa.Column("used_at", Timestamp),
    )
    op.create_table(
        "enrolment",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("node", sa.String, nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary, nullable=False),
        sa.Column("ticket", sa.LargeBinary, sa.ForeignKey("ticket.secret_sha256")),
        sa.Column("ek_sha256", sa.String, nullable=False),
        sa.Column("ek_public", sa.LargeBinary, nullable=False),
        sa.Column("ak_public", sa.LargeBinary, nullable=False),
        sa.Column("node_key_public", sa.LargeBinary, nullable=False),
        sa.Column("endorsed_by", sa.String, nullable=False),
        sa.Column("expires_at", Timestamp, nullable=False, index=True),
        sa.Column("used_at", Timestamp),
    )
    op.create_table(
        "node",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tenant", sa.String),
        sa.Column("image", sa.String),
        sa.Column("ek_sha256", sa.String, nullable=False, unique=True),
        sa.Column("ek_public", sa.LargeBinary, nullable=False),
        sa.Column("ak_public", sa.LargeBinary, nullable=False),
        sa.Column("node_key_public", sa.LargeBinary, nullable=False),
        sa.Column("approved", sa.Boolean, nullable=False),
        sa.Column("standing", sa.String, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("changed_at", Timestamp, nullable=False),
        sa.Column("enrolled_at", Timestamp, nullable=False),
        sa.Column("deadline", Timestamp, index=True),
        sa.Column("rounds", sa.Integer, nullable=False),
        sa.Column("clock_state", sa.Text),
        sa.Column("fell_at_reset", RowId),
        sa.Column("boot_log_sha256", sa.String),
        sa.Column("boot_log_reset", RowId),
        sa.Column("last_round", sa.Text),
    )
    op.create_table(
        "boot_log",
        sa.Column("sha256", sa.String, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("stored_at", Timestamp, nullable=False),
    )
    op.create_table(
        "used_challenge",
        sa.Column("nonce", sa.LargeBinary, primary_key=True),
        sa.Column("expires_at", Timestamp, nullable=False, index=True),
    )
    op.create_table(
        "standing",
        sa.Column("seq", RowId, primary_key=True, autoincrement=True),
        sa.Column("node", sa.String, nullable=False, index=True),
        sa.Column("tenant", sa.String),
        sa.Column("standing", sa.String, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("changed_at", Timestamp, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "reference_set",
        sa.Column("image", sa.String, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("expires_at", Timestamp, nullable=False),
        sa.Column("installed_at", Timestamp, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("index", RowId, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.Text, nullable=False),
        sa.Column("leaf", sa.LargeBinary, nullable=False),
        sa.Column("at", Timestamp, nullable=False),
    )
