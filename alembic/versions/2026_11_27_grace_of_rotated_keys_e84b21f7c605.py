"""A rotated API key may work on for a while beside the new one.

Revision ID: e84b21f7c605
Revises: 7c3e9a50d1b8
"""

import sqlalchemy as sa

from alembic import op

revision = "e84b21f7c605"
down_revision = "7c3e9a50d1b8"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("api_keys") as batch:
        batch.add_column(
            sa.Column("previous_prefix", sa.String(length=20), nullable=True)
        )
        batch.add_column(
            sa.Column("previous_hash", sa.LargeBinary(length=32), nullable=True)
        )
        batch.add_column(
            sa.Column("previous_until", sa.DateTime(timezone=True), nullable=True)
        )
        batch.create_unique_constraint(
            op.f("uq_api_keys_previous_hash"), ["previous_hash"]
        )


def downgrade() -> None:
    with op.batch_alter_table("api_keys") as batch:
        batch.drop_constraint(op.f("uq_api_keys_previous_hash"), type_="unique")
        for name in ("previous_until", "previous_hash", "previous_prefix"):
            batch.drop_column(name)
