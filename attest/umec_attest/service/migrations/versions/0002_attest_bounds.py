"""The newest feed row and the live result of each node; who began an enrolment; what pruning looks for."""

import sqlalchemy as sa
from alembic import op

from umec_core.store import RowId, Timestamp

revision = "attest_0002"
down_revision = "attest_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("node", sa.Column("last_seq", RowId, nullable=False, server_default="0"))
    op.add_column("node", sa.Column("result", sa.Text))
    op.add_column("node", sa.Column("result_basis", sa.String))
    op.add_column("node", sa.Column("result_expires_at", Timestamp))
    op.add_column("enrolment", sa.Column("address", sa.String, nullable=False, server_default=""))
    op.execute(
        "UPDATE node SET last_seq = COALESCE((SELECT MAX(standing.seq) FROM standing WHERE standing.node = node.id), 0)"
    )
    op.create_index("ix_node_last_seq", "node", ["last_seq"])
    op.create_index("ix_standing_changed_at", "standing", ["changed_at"])
    op.create_index("ix_enrolment_ek_sha256", "enrolment", ["ek_sha256"])
    op.create_index("ix_enrolment_address", "enrolment", ["address"])
