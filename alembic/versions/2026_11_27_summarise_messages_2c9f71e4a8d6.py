"""Messages get summaries of all that stands above them.

Revision ID: 2c9f71e4a8d6
Revises: 1f7c5ba9e346
"""

import sqlalchemy as sa

from alembic import op

revision = "2c9f71e4a8d6"
down_revision = "1f7c5ba9e346"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "message_summaries",
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["messages.id"],
            name=op.f("fk_message_summaries_message_id_messages"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("message_id", name=op.f("pk_message_summaries")),
    )


def downgrade() -> None:
    op.drop_table("message_summaries")
