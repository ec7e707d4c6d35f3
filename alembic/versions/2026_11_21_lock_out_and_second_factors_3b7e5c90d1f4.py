"""Failed logins are counted.

Revision ID: 3b7e5c90d1f4
Revises: 4b7e90c2d1fa
"""

import sqlalchemy as sa

from alembic import op

revision = "3b7e5c90d1f4"
down_revision = "4b7e90c2d1fa"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "login_counters",
        sa.Column("key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("forget_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_login_counters")),
        sa.UniqueConstraint("key", name=op.f("uq_login_counters_key")),
    )
    op.create_index("ix_login_counters_account_id", "login_counters", ["account_id"])
    op.create_index("ix_login_counters_expires_at", "login_counters", ["expires_at"])


def downgrade() -> None:
    op.drop_table("login_counters")
