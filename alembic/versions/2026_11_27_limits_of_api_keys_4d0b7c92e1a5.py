"""What one API key may use: models, a pace, and credits in a day.

Revision ID: 4d0b7c92e1a5
Revises: 9a41c7e05b2d
"""

import sqlalchemy as sa

from alembic import op

revision = "4d0b7c92e1a5"
down_revision = "9a41c7e05b2d"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("api_keys") as batch:
        batch.add_column(sa.Column("models", sa.JSON(), nullable=True))
        batch.add_column(sa.Column("requests_per_minute", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("tokens_per_minute", sa.Integer(), nullable=True))
        batch.add_column(
            sa.Column("daily_credit_limit", sa.BigInteger(), nullable=True)
        )


def downgrade() -> None:
    with op.batch_alter_table("api_keys") as batch:
        for name in (
            "daily_credit_limit",
            "tokens_per_minute",
            "requests_per_minute",
            "models",
        ):
            batch.drop_column(name)
