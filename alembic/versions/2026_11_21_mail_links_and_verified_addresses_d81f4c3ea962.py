"""Mail links; when addresses were verified, and when sessions were authenticated.

Revision ID: d81f4c3ea962
Revises: 3b7e5c90d1f4
"""

import sqlalchemy as sa

from alembic import op

revision = "d81f4c3ea962"
down_revision = "3b7e5c90d1f4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "users",
        sa.Column("email_verified_at", sa.DateTime(timezone=True), nullable=True),
    )
    op.add_column(
        "user_sessions",
        sa.Column("authenticated_at", sa.DateTime(timezone=True), nullable=True),
    )
    op.execute("UPDATE user_sessions SET authenticated_at = created_at")
    with op.batch_alter_table("user_sessions") as batch:
        batch.alter_column("authenticated_at", nullable=False)
    op.create_table(
        "mail_links",
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("token_hash", sa.LargeBinary(length=32), nullable=True),
        sa.Column("ip", sa.String(length=45), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("username", sa.String(length=32), nullable=True),
        sa.Column("full_name", sa.String(length=200), nullable=True),
        sa.Column("password_hash", sa.String(length=255), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.CheckConstraint(
            "purpose IN ('register', 'verify', 'change', 'reset', 'invite')",
            name=op.f("ck_mail_links_purpose"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_mail_links_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mail_links")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_mail_links_token_hash")),
    )
    op.create_index("ix_mail_links_user_id", "mail_links", ["user_id"])
    op.create_index(
        "ix_mail_links_email_created_at", "mail_links", ["email", "created_at"]
    )


def downgrade() -> None:
    op.drop_table("mail_links")
    op.execute("DELETE FROM jobs WHERE name LIKE 'link.%' OR name LIKE 'mail.%'")
    with op.batch_alter_table("user_sessions") as batch:
        batch.drop_column("authenticated_at")
    with op.batch_alter_table("users") as batch:
        batch.drop_column("email_verified_at")
