"""Versions of an image that count beside each other, and how far a node may go back."""

import sqlalchemy as sa
from alembic import op

from umec_core.store import Timestamp

revision = "attest_0013"
down_revision = "attest_0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("reference_set", sa.Column("shortened", Timestamp))
    op.add_column("node", sa.Column("version_floor", sa.Text))
