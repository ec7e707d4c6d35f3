"""API keys, service keys, and the usage that external applications report.

Revision ID: 4f6b0d92c7e1
Revises: 3ed6ddd4e145
"""

from typing import Any

import sqlalchemy as sa

from alembic import op

revision = "4f6b0d92c7e1"
down_revision = "3ed6ddd4e145"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        *_columns_of_a_key(),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_api_keys_user_id_users"),
            ondelete="CASCADE",
        ),
        *_constraints_of_a_key("api_keys"),
    )
    op.create_index("ix_api_keys_user_id", "api_keys", ["user_id"])
    op.create_table(
        "service_keys",
        *_columns_of_a_key(),
        *_constraints_of_a_key("service_keys"),
    )
    op.create_table(
        "reported_usage",
        sa.Column("service_key_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("report_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("amount > 0", name=op.f("ck_reported_usage_amount")),
        sa.ForeignKeyConstraint(
            ["service_key_id"],
            ["service_keys.id"],
            name=op.f("fk_reported_usage_service_key_id_service_keys"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_reported_usage_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reported_usage")),
        sa.UniqueConstraint(
            "service_key_id",
            "report_id",
            name=op.f("uq_reported_usage_service_key_id_report_id"),
        ),
    )
    op.create_index("ix_reported_usage_user_id", "reported_usage", ["user_id"])


def _columns_of_a_key() -> list[sa.Column[Any]]:
    return [
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("prefix", sa.String(length=20), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("allowed_ips", sa.JSON(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    ]


def _constraints_of_a_key(table: str) -> list[sa.Constraint]:
    return [
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
        sa.UniqueConstraint("prefix", name=op.f(f"uq_{table}_prefix")),
        sa.UniqueConstraint("key_hash", name=op.f(f"uq_{table}_key_hash")),
    ]


def downgrade() -> None:
    op.drop_table("reported_usage")
    op.drop_table("service_keys")
    op.drop_table("api_keys")
