"""Minimum versions of repositories, and the highest version that was promoted to each stage."""

import sqlalchemy as sa
from alembic import op

from umec_core.store import Timestamp

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "minimum_versions",
        sa.Column("repository", sa.String(255), primary_key=True),
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("set_at", Timestamp(), nullable=False),
    )
    op.create_table(
        "promoted_versions",
        sa.Column("repository", sa.String(255), primary_key=True),
        sa.Column("stage", sa.String(63), primary_key=True),
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("promoted_at", Timestamp(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("promoted_versions")
    op.drop_table("minimum_versions")
