"""A node may have the identity that its device's maker gave it."""

import sqlalchemy as sa
from alembic import op

revision = "attest_0006"
down_revision = "attest_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("iak_public", "idevid_public"):
        op.add_column("enrolment", sa.Column(name, sa.LargeBinary))
    op.add_column("enrolment", sa.Column("shown", sa.Text, nullable=False, server_default="{}"))
    for name in ("iak_sha256", "idevid_sha256"):
        op.add_column("node", sa.Column(name, sa.String))
        op.create_index(f"ix_node_{name}", "node", [name], unique=True)
