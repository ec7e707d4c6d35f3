"""Admins, support staff, and their sessions.

Revision ID: a3f0c61d7b58
Revises: 4b7e90c2d1fa
"""

import sqlalchemy as sa

from alembic import op

revision = "a3f0c61d7b58"
down_revision = "4b7e90c2d1fa"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_accounts("admins", sa.Column("permissions", sa.JSON(), nullable=False))
    _create_accounts(
        "support_staff",
        sa.Column("level", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "level BETWEEN 1 AND 3", name=op.f("ck_support_staff_level")
        ),
    )
    _create_sessions()
    _create_refresh_tokens()


def _create_accounts(table: str, *special: sa.Column[int] | sa.CheckConstraint) -> None:
    op.create_table(
        table,
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column("username", sa.String(length=32), nullable=False),
        sa.Column("full_name", sa.String(length=200), nullable=True),
        sa.Column("password_hash", sa.String(length=255), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        *special,
        sa.CheckConstraint(
            "status IN ('active', 'suspended')", name=op.f(f"ck_{table}_status")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
        sa.UniqueConstraint("email", name=op.f(f"uq_{table}_email")),
        sa.UniqueConstraint("username", name=op.f(f"uq_{table}_username")),
    )


def _create_sessions() -> None:
    op.create_table(
        "desk_sessions",
        sa.Column("admin_id", sa.Uuid(), nullable=True),
        sa.Column("staff_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ip", sa.String(length=45), nullable=True),
        sa.Column("user_agent", sa.String(length=255), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.CheckConstraint(
            "(admin_id IS NULL) <> (staff_id IS NULL)",
            name=op.f("ck_desk_sessions_owner"),
        ),
        sa.ForeignKeyConstraint(
            ["admin_id"],
            ["admins.id"],
            name=op.f("fk_desk_sessions_admin_id_admins"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["staff_id"],
            ["support_staff.id"],
            name=op.f("fk_desk_sessions_staff_id_support_staff"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_desk_sessions")),
    )
    op.create_index("ix_desk_sessions_admin_id", "desk_sessions", ["admin_id"])
    op.create_index("ix_desk_sessions_staff_id", "desk_sessions", ["staff_id"])


def _create_refresh_tokens() -> None:
    op.create_table(
        "desk_refresh_tokens",
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["desk_sessions.id"],
            name=op.f("fk_desk_refresh_tokens_session_id_desk_sessions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_desk_refresh_tokens")),
        sa.UniqueConstraint(
            "token_hash", name=op.f("uq_desk_refresh_tokens_token_hash")
        ),
    )
    op.create_index(
        "ix_desk_refresh_tokens_session_id", "desk_refresh_tokens", ["session_id"]
    )


def downgrade() -> None:
    op.drop_table("desk_refresh_tokens")
    op.drop_table("desk_sessions")
    op.drop_table("support_staff")
    op.drop_table("admins")
