"""Plans, the credit ledger, usage by day.

Revision ID: 3ed6ddd4e145
Revises: c2a84f1be6d3
"""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from alembic import op

revision = "3ed6ddd4e145"
down_revision = "c2a84f1be6d3"
branch_labels = None
depends_on = None

_MIB, _DOLLAR = 2**20, 1_000_000

PLANS: list[dict[str, Any]] = [
    {
        "name": "free",
        "daily_conversations": 1000,
        "monthly_credits": 20 * _DOLLAR,
        "requests_per_minute": 600,
        "tokens_per_minute": 2_000_000,
        "storage_bytes": 2 * 1024 * _MIB,
        "file_bytes": 50 * _MIB,
        "project_tokens": 500_000,
    },
    {
        "name": "pro",
        "daily_conversations": 5000,
        "monthly_credits": 100 * _DOLLAR,
        "requests_per_minute": 1500,
        "tokens_per_minute": 5_000_000,
        "storage_bytes": 20 * 1024 * _MIB,
        "file_bytes": 100 * _MIB,
        "project_tokens": 2_000_000,
    },
    {
        "name": "team",
        "daily_conversations": 20_000,
        "monthly_credits": 500 * _DOLLAR,
        "requests_per_minute": 6000,
        "tokens_per_minute": 20_000_000,
        "storage_bytes": 100 * 1024 * _MIB,
        "file_bytes": 250 * _MIB,
        "project_tokens": 10_000_000,
    },
    {
        "name": "enterprise",
        "daily_conversations": None,
        "monthly_credits": None,
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "storage_bytes": None,
        "file_bytes": None,
        "project_tokens": None,
    },
]
"""What there is to begin with; admins change it as they like."""


def upgrade() -> None:
    _create_plans()
    _create_ledger()
    _create_usage()
    with op.batch_alter_table("users") as batch:
        # A default for the rows that are there; new ones get theirs from the model.
        batch.add_column(
            sa.Column("plan", sa.String(32), nullable=False, server_default="free")
        )
        batch.add_column(sa.Column("limits", sa.JSON(), nullable=True))
    with op.batch_alter_table("users") as batch:
        batch.alter_column("plan", server_default=None)
        batch.create_foreign_key(
            op.f("fk_users_plan_plans"), "plans", ["plan"], ["name"]
        )
    op.create_index("ix_users_plan", "users", ["plan"])


def downgrade() -> None:
    op.drop_index("ix_users_plan", "users")
    with op.batch_alter_table("users") as batch:
        batch.drop_constraint(op.f("fk_users_plan_plans"), type_="foreignkey")
        batch.drop_column("limits")
        batch.drop_column("plan")
    for table in (
        "credit_leases",
        "credit_holders",
        "credit_entries",
        "credit_accounts",
        "usage_days",
        "plans",
    ):
        op.drop_table(table)


def _create_plans() -> None:
    plans = op.create_table(
        "plans",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("daily_conversations", sa.Integer(), nullable=True),
        sa.Column("monthly_credits", sa.BigInteger(), nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("tokens_per_minute", sa.Integer(), nullable=True),
        sa.Column("storage_bytes", sa.BigInteger(), nullable=True),
        sa.Column("file_bytes", sa.BigInteger(), nullable=True),
        sa.Column("project_tokens", sa.Integer(), nullable=True),
        sa.Column("models", sa.JSON(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
        sa.UniqueConstraint("name", name=op.f("uq_plans_name")),
    )
    now = datetime.now(UTC)
    op.bulk_insert(
        plans,
        [{"id": uuid4(), "created_at": now, "updated_at": now, **p} for p in PLANS],
    )


def _create_ledger() -> None:
    op.create_table(
        "credit_accounts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("balance", sa.BigInteger(), nullable=False),
        sa.Column("leased", sa.BigInteger(), nullable=False),
        sa.Column("period", sa.String(length=7), nullable=True),
        sa.Column("day", sa.Date(), nullable=True),
        sa.Column("conversations", sa.Integer(), nullable=False),
        sa.Column("warned_credits", sa.SmallInteger(), nullable=False),
        sa.Column("warned_conversations", sa.SmallInteger(), nullable=False),
        sa.CheckConstraint(
            "balance >= leased", name=op.f("ck_credit_accounts_balance")
        ),
        sa.CheckConstraint("leased >= 0", name=op.f("ck_credit_accounts_leased")),
        sa.ForeignKeyConstraint(
            ["id"],
            ["users.id"],
            name=op.f("fk_credit_accounts_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_accounts")),
    )
    op.create_table(
        "credit_entries",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("period", sa.String(length=7), nullable=True),
        sa.Column("note", sa.String(length=200), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('grant', 'usage', 'adjustment')",
            name=op.f("ck_credit_entries_kind"),
        ),
        sa.CheckConstraint("amount <> 0", name=op.f("ck_credit_entries_amount")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_entries")),
        sa.UniqueConstraint(
            "user_id", "period", name=op.f("uq_credit_entries_user_id_period")
        ),
    )
    op.create_index("ix_credit_entries_user_id", "credit_entries", ["user_id", "id"])
    op.create_table(
        "credit_holders",
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_holders")),
    )
    op.create_index("ix_credit_holders_expires_at", "credit_holders", ["expires_at"])
    op.create_table(
        "credit_leases",
        sa.Column("holder_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("credits", sa.BigInteger(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.Date(), nullable=True),
        sa.Column("conversations", sa.Integer(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("credits >= spent", name=op.f("ck_credit_leases_credits")),
        sa.CheckConstraint("spent >= 0", name=op.f("ck_credit_leases_spent")),
        sa.ForeignKeyConstraint(
            ["holder_id"],
            ["credit_holders.id"],
            name=op.f("fk_credit_leases_holder_id_credit_holders"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["credit_accounts.id"],
            name=op.f("fk_credit_leases_user_id_credit_accounts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_leases")),
        sa.UniqueConstraint(
            "holder_id", "user_id", name=op.f("uq_credit_leases_holder_id_user_id")
        ),
    )
    op.create_index("ix_credit_leases_user_id", "credit_leases", ["user_id"])


def _create_usage() -> None:
    op.create_table(
        "usage_days",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("estimated", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_read_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger(), nullable=False),
        sa.Column("credits", sa.BigInteger(), nullable=False),
        sa.Column("absorbed", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_days")),
        sa.UniqueConstraint(
            "user_id",
            "day",
            "kind",
            "model",
            "key_id",
            name=op.f("uq_usage_days_user_id_day_kind_model_key_id"),
        ),
    )
