"""What processes hold of the daily budgets of API keys.

Revision ID: c61f4a0d83b7
Revises: e84b21f7c605
"""

import sqlalchemy as sa

from alembic import op

revision = "c61f4a0d83b7"
down_revision = "e84b21f7c605"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "key_leases",
        sa.Column("holder_id", sa.Uuid(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("credits", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("credits >= 0", name=op.f("ck_key_leases_credits")),
        sa.ForeignKeyConstraint(
            ["holder_id"],
            ["credit_holders.id"],
            name=op.f("fk_key_leases_holder_id_credit_holders"),
        ),
        sa.ForeignKeyConstraint(
            ["key_id"],
            ["api_keys.id"],
            name=op.f("fk_key_leases_key_id_api_keys"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_key_leases")),
        sa.UniqueConstraint(
            "holder_id",
            "key_id",
            "day",
            name=op.f("uq_key_leases_holder_id_key_id_day"),
        ),
    )
    op.create_index(op.f("ix_key_leases_key_id"), "key_leases", ["key_id"])


def downgrade() -> None:
    op.drop_table("key_leases")
