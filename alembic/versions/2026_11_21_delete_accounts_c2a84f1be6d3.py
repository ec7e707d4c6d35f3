"""Accounts that are archived, or deleted and may be restored.

Revision ID: c2a84f1be6d3
Revises: a3f0c61d7b58
"""

import sqlalchemy as sa

from alembic import op

revision = "c2a84f1be6d3"
down_revision = "a3f0c61d7b58"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _check_status("'active', 'suspended', 'archived', 'deleted'")
    op.create_table(
        "deleted_users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_by", sa.String(length=16), nullable=False),
        sa.Column("deleted_by_id", sa.Uuid(), nullable=True),
        sa.Column("purge_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["id"],
            ["users.id"],
            name=op.f("fk_deleted_users_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deleted_users")),
    )
    op.create_index("ix_deleted_users_purge_at", "deleted_users", ["purge_at", "id"])


def downgrade() -> None:
    """A version that knows neither state must let nobody in: both are suspended.

    What was sealed of deleted accounts goes, for nothing could read it there.
    """
    op.drop_table("deleted_users")
    op.execute(
        "UPDATE users SET status = 'suspended' WHERE status IN ('archived', 'deleted')"
    )
    _check_status("'active', 'suspended'")


def _check_status(values: str) -> None:
    with op.batch_alter_table("users") as batch:
        batch.drop_constraint(op.f("ck_users_status"), type_="check")
        batch.create_check_constraint(op.f("ck_users_status"), f"status IN ({values})")
