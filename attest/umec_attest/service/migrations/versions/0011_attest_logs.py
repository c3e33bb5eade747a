"""Who names a boot log is found at once: one that nobody names is forgotten with the round that let go of it."""

from alembic import op

revision = "attest_0011"
down_revision = "attest_0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_node_boot_log_sha256", "node", ["boot_log_sha256"])
    op.create_index("ix_evidence_boot_log_sha256", "evidence", ["boot_log_sha256"])
