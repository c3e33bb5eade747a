"""The deny list and its version."""

import sqlalchemy as sa
from alembic import op

from umec_core.store import Timestamp

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "denied_images",
        sa.Column("digest", sa.String(71), primary_key=True),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("denied_at", Timestamp(), nullable=False),
    )
    lists = op.create_table(
        "deny_list",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
    )
    op.bulk_insert(lists, [{"id": 1, "version": 0}])


def downgrade() -> None:
    op.drop_table("deny_list")
    op.drop_table("denied_images")
