"""When the service was last there, so that its own absence is not taken for the silence of nodes."""

import sqlalchemy as sa
from alembic import op

from umec_core.store import Timestamp

revision = "attest_0003"
down_revision = "attest_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "presence",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seen_at", Timestamp, nullable=False),
    )
