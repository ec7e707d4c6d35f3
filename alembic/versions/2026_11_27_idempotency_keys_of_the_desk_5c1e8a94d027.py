"""Idempotency keys of admins, staff and service keys, besides those of users.

Revision ID: 5c1e8a94d027
Revises: 6d2c8b14fa07
"""

import sqlalchemy as sa

from alembic import op

revision = "5c1e8a94d027"
down_revision = "6d2c8b14fa07"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("idempotency_keys") as batch:
        batch.drop_constraint(
            batch.f("fk_idempotency_keys_user_id_users"), type_="foreignkey"
        )
        batch.drop_constraint(
            batch.f("uq_idempotency_keys_user_id_key"), type_="unique"
        )
        batch.alter_column("user_id", new_column_name="owner_id")
    with op.batch_alter_table("idempotency_keys") as batch:
        batch.create_unique_constraint(
            batch.f("uq_idempotency_keys_owner_id_key"), ["owner_id", "key"]
        )


def downgrade() -> None:
    users = sa.table("users", sa.column("id", sa.Uuid()))
    keys = sa.table("idempotency_keys", sa.column("owner_id", sa.Uuid()))
    op.execute(sa.delete(keys).where(keys.c.owner_id.not_in(sa.select(users.c.id))))
    with op.batch_alter_table("idempotency_keys") as batch:
        batch.drop_constraint(
            batch.f("uq_idempotency_keys_owner_id_key"), type_="unique"
        )
        batch.alter_column("owner_id", new_column_name="user_id")
    with op.batch_alter_table("idempotency_keys") as batch:
        batch.create_unique_constraint(
            batch.f("uq_idempotency_keys_user_id_key"), ["user_id", "key"]
        )
        batch.create_foreign_key(
            batch.f("fk_idempotency_keys_user_id_users"),
            "users",
            ["user_id"],
            ["id"],
            ondelete="CASCADE",
        )
