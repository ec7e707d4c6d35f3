"""For how long equal calls by an API key get the same answer.

Revision ID: a7d2e91f406c
Revises: c81f5a2e7d40
"""

import sqlalchemy as sa

from alembic import op

revision = "a7d2e91f406c"
down_revision = "c81f5a2e7d40"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("api_keys") as batch:
        batch.add_column(sa.Column("cache_seconds", sa.Integer(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("api_keys") as batch:
        batch.drop_column("cache_seconds")
