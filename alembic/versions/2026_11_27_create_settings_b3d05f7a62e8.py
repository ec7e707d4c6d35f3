"""Settings that admins change while the server runs.

Revision ID: b3d05f7a62e8
Revises: 9e27d4b0c516
"""

import sqlalchemy as sa

from alembic import op

revision = "b3d05f7a62e8"
down_revision = "9e27d4b0c516"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "settings",
        sa.Column("variable", sa.String(length=100), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_settings")),
        sa.UniqueConstraint("variable", name=op.f("uq_settings_variable")),
    )


def downgrade() -> None:
    op.drop_table("settings")
