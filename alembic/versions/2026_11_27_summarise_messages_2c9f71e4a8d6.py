"""Messages hold a summary of all that stands above them, and what files that named.

Revision ID: 2c9f71e4a8d6
Revises: 1f7c5ba9e346
"""

import sqlalchemy as sa

from alembic import op

revision = "2c9f71e4a8d6"
down_revision = "1f7c5ba9e346"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("messages", sa.Column("summary", sa.Text(), nullable=True))
    op.add_column("messages", sa.Column("summary_files", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("messages", "summary_files")
    op.drop_column("messages", "summary")
