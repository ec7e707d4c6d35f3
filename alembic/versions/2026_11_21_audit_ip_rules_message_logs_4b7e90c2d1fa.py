"""What was done by whom, which addresses may use what, what models were asked.

Revision ID: 4b7e90c2d1fa
Revises: 8c1d27a4be90
"""

import sqlalchemy as sa

from alembic import op

revision = "4b7e90c2d1fa"
down_revision = "8c1d27a4be90"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_audit()
    op.create_table(
        "ip_rules",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("network", sa.String(length=43), nullable=False),
        sa.Column("note", sa.String(length=200), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "scope IN ('service', 'desk')", name=op.f("ck_ip_rules_scope")
        ),
        sa.CheckConstraint(
            "action IN ('allow', 'deny')", name=op.f("ck_ip_rules_action")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ip_rules")),
        sa.UniqueConstraint(
            "scope", "action", "network", name=op.f("uq_ip_rules_scope_action_network")
        ),
    )
    _create_message_logs()


def _create_message_logs() -> None:
    op.create_table(
        "message_logs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("username", sa.String(length=320), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("messages", sa.Text(), nullable=True),
        sa.Column("input_tokens", sa.Integer(), nullable=False),
        sa.Column("output_tokens", sa.Integer(), nullable=False),
        sa.Column("credits", sa.BigInteger(), nullable=False),
        sa.Column("latency_ms", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_message_logs_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message_logs")),
    )
    op.create_index("ix_message_logs_user_id_id", "message_logs", ["user_id", "id"])
    if op.get_bind().dialect.name == "postgresql":
        # Sealed text does not compress: trying costs a third of storing it.
        op.execute("ALTER TABLE message_logs ALTER messages SET STORAGE EXTERNAL")
    # A default for the rows that are there; new ones get theirs from the model.
    with op.batch_alter_table("users") as batch:
        batch.add_column(
            sa.Column(
                "log_messages", sa.Boolean(), nullable=False, server_default=sa.true()
            )
        )
    with op.batch_alter_table("users") as batch:
        batch.alter_column("log_messages", server_default=None)


def _create_audit() -> None:
    op.create_table(
        "audit_events",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_kind", sa.String(length=16), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target_kind", sa.String(length=32), nullable=True),
        sa.Column("target_id", sa.Uuid(), nullable=True),
        sa.Column("details", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("details_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_events")),
    )
    for columns in (
        ["actor_id", "seq"],
        ["target_id", "seq"],
        ["action", "seq"],
        ["created_at"],
    ):
        name = f"ix_audit_events_{'_'.join(columns)}"
        op.create_index(name, "audit_events", columns)
    op.create_table(
        "audit_chain",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_chain")),
    )


def downgrade() -> None:
    with op.batch_alter_table("users") as batch:
        batch.drop_column("log_messages")
    op.drop_table("message_logs")
    op.drop_table("ip_rules")
    op.drop_table("audit_chain")
    op.drop_table("audit_events")
