"""The number of a round marks its challenge as used; what changes with each round has columns of its own."""

import sqlalchemy as sa
from alembic import op

from umec_core.store import Timestamp

revision = "attest_0005"
down_revision = "attest_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("node", sa.Column("answered", sa.LargeBinary))
    op.add_column("node", sa.Column("round_at", Timestamp))
    op.add_column("node", sa.Column("evidence_sha256", sa.String))
    op.drop_table("used_challenge")
