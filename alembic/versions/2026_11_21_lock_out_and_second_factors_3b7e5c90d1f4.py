"""Counters of failed logins; second factors.

Revision ID: 3b7e5c90d1f4
Revises: c2a84f1be6d3
"""

import sqlalchemy as sa

from alembic import op

revision = "3b7e5c90d1f4"
down_revision = "c2a84f1be6d3"
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
    op.create_table(
        "authenticators",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_authenticators")),
        sa.UniqueConstraint("account_id", name=op.f("uq_authenticators_account_id")),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("authenticator_id", sa.Uuid(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["authenticator_id"],
            ["authenticators.id"],
            name=op.f("fk_recovery_codes_authenticator_id_authenticators"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recovery_codes")),
        sa.UniqueConstraint("code_hash", name=op.f("uq_recovery_codes_code_hash")),
    )
    op.create_index(
        "ix_recovery_codes_authenticator_id", "recovery_codes", ["authenticator_id"]
    )


def downgrade() -> None:
    op.drop_table("recovery_codes")
    op.drop_table("authenticators")
    op.drop_table("login_counters")
