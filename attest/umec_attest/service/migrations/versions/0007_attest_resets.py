"""The class of a node, and what is known of the boots of an open box."""

import sqlalchemy as sa
from alembic import op

revision = "attest_0007"
down_revision = "attest_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("node", "ticket"):
        op.add_column(table, sa.Column("node_class", sa.String, nullable=False, server_default="standard"))
    op.add_column("node", sa.Column("reset_watch", sa.Text))
