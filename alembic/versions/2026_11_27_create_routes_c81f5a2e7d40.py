"""Routes: names that stand for several deployments of models.

Revision ID: c81f5a2e7d40
Revises: c61f4a0d83b7
"""

import sqlalchemy as sa

from alembic import op

revision = "c81f5a2e7d40"
down_revision = "c61f4a0d83b7"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "routes",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("deployments", sa.JSON(), nullable=False),
        sa.Column("fallbacks", sa.JSON(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_routes")),
        sa.UniqueConstraint("name", name=op.f("uq_routes_name")),
    )


def downgrade() -> None:
    op.drop_table("routes")
