"""The audit log of the images service."""

import sqlalchemy as sa
from alembic import op

from umec_core.store import RowId, Timestamp

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "images_audit",
        sa.Column("index", RowId, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        sa.Column("at", Timestamp(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("images_audit")
