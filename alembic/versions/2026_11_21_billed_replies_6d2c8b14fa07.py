"""What of a reply's cost is booked already.

Revision ID: 6d2c8b14fa07
Revises: 4f6b0d92c7e1
"""

import sqlalchemy as sa

from alembic import op

revision = "6d2c8b14fa07"
down_revision = "4f6b0d92c7e1"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # What was written before there was a ledger stays unpaid.
    op.add_column(
        "messages",
        sa.Column("billed", sa.BigInteger(), nullable=False, server_default="0"),
    )
    op.execute("UPDATE messages SET billed = credits")


def downgrade() -> None:
    op.drop_column("messages", "billed")
