"""How far what ran on a node is judged."""

import sqlalchemy as sa
from alembic import op

revision = "attest_0008"
down_revision = "attest_0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("node", sa.Column("runtime_checkpoint", sa.Text))
