"""A holder of credits is remembered when its leases were taken back.

Revision ID: e71b5d2f90a4
Revises: 9b27f4d0c6e1
"""

import sqlalchemy as sa

from alembic import op

revision = "e71b5d2f90a4"
down_revision = "9b27f4d0c6e1"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("credit_holders") as batch:
        batch.add_column(
            sa.Column("taken_back_at", sa.DateTime(timezone=True), nullable=True)
        )


def downgrade() -> None:
    # The version before deletes such rows: to it they would be holders that expired.
    op.execute("DELETE FROM credit_holders WHERE taken_back_at IS NOT NULL")
    with op.batch_alter_table("credit_holders") as batch:
        batch.drop_column("taken_back_at")
