"""The transparency log and its newest root."""

import sqlalchemy as sa
from alembic import op

from umec_core.store import Timestamp

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sigstore_entries",
        sa.Column("log_index", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("version", sa.String(16), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("leaf", sa.String(64), nullable=False, unique=True),
        sa.Column("logged_at", Timestamp(), nullable=False),
    )
    op.create_table(
        "sigstore_checkpoint",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.String(64), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("sigstore_checkpoint")
    op.drop_table("sigstore_entries")
