"""Messages hold a summary of all that stands above them.

Revision ID: 2c9f71e4a8d6
Revises: a7d2e91f406c
"""

import sqlalchemy as sa

from alembic import op

revision = "2c9f71e4a8d6"
down_revision = "a7d2e91f406c"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("messages", sa.Column("summary", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("messages", "summary")
