"""How far what a node started for applications is judged."""

import sqlalchemy as sa
from alembic import op

revision = "attest_0014"
down_revision = "attest_0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("node", sa.Column("start_checkpoint", sa.Text))
