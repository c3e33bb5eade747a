"""The rounds of a node in their order: what is beyond the bound goes with the round that passes it."""

from alembic import op

revision = "attest_0012"
down_revision = "attest_0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_round_node_seq", "round", ["node", "seq"])
    op.drop_index("ix_round_node", "round")
