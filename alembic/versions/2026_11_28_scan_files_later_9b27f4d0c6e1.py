"""Files tell whether a virus scanner has seen them.

Revision ID: 9b27f4d0c6e1
Revises: d38b6c05f1e9
"""

import sqlalchemy as sa

from alembic import op

revision = "9b27f4d0c6e1"
down_revision = "d38b6c05f1e9"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Of those that are there nobody knows: they are scanned once more.
    with op.batch_alter_table("files") as batch:
        batch.add_column(
            sa.Column(
                "scanned", sa.Boolean(), nullable=False, server_default=sa.false()
            )
        )
    with op.batch_alter_table("files") as batch:
        batch.alter_column("scanned", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("files") as batch:
        batch.drop_column("scanned")
