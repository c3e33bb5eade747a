"""Which version of signed policies was in use, so that an older one is refused."""

import sqlalchemy as sa
from alembic import op

from umec_core.store import Timestamp

revision = "attest_0009"
down_revision = "attest_0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policy_bundle",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("loaded_at", Timestamp, nullable=False),
    )
