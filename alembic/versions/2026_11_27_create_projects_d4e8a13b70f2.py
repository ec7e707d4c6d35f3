"""Projects, who is in them, and chats that are bound to them.

Revision ID: d4e8a13b70f2
Revises: 6f2b94d8e013
"""

import sqlalchemy as sa

from alembic import op

revision = "d4e8a13b70f2"
down_revision = "6f2b94d8e013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("instructions", sa.Text(), nullable=True),
        sa.Column("token_limit", sa.Integer(), nullable=True),
        sa.Column("context_mode", sa.String(length=16), nullable=False),
        sa.Column("archived", sa.Boolean(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "context_mode IN ('auto', 'full', 'retrieval')",
            name=op.f("ck_projects_context_mode"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_projects_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
    )
    op.create_index("ix_projects_user_id", "projects", ["user_id"])
    op.create_table(
        "project_members",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "role IN ('editor', 'viewer')", name=op.f("ck_project_members_role")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_project_members_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_project_members_project_id_projects"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project_members")),
        sa.UniqueConstraint(
            "user_id", "project_id", name=op.f("uq_project_members_user_id_project_id")
        ),
    )
    op.create_index("ix_project_members_project_id", "project_members", ["project_id"])
    with op.batch_alter_table("chats") as batch:
        batch.add_column(sa.Column("project_id", sa.Uuid(), nullable=True))
        batch.create_foreign_key(
            batch.f("fk_chats_project_id_projects"),
            "projects",
            ["project_id"],
            ["id"],
            ondelete="SET NULL",
        )
    op.create_index("ix_chats_project_id_user_id", "chats", ["project_id", "user_id"])


def downgrade() -> None:
    op.drop_index("ix_chats_project_id_user_id", "chats")
    with op.batch_alter_table("chats") as batch:
        batch.drop_constraint("fk_chats_project_id_projects", type_="foreignkey")
        batch.drop_column("project_id")
    op.drop_table("project_members")
    op.drop_table("projects")
