"""Files get the size of what models see in place of a large image.

Revision ID: 4e8d1b60c9f3
Revises: b61d0f83c7a5
"""

import sqlalchemy as sa

from alembic import op

revision = "4e8d1b60c9f3"
down_revision = "b61d0f83c7a5"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("files", sa.Column("scaled_size", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("files", "scaled_size")
