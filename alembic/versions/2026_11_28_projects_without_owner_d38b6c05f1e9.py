"""The manual's project has no owner.

Revision ID: d38b6c05f1e9
Revises: 4e8d1b60c9f3
"""

import sqlalchemy as sa

from alembic import op

revision = "d38b6c05f1e9"
down_revision = "4e8d1b60c9f3"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("projects") as batch:
        batch.alter_column("user_id", existing_type=sa.Uuid(), nullable=True)


def downgrade() -> None:
    # One by one: nothing cascades on SQLite here, see `core/migrations.py`.
    op.execute(
        "DELETE FROM postings WHERE chunk_id IN (SELECT chunks.id FROM chunks"
        " JOIN project_documents ON project_documents.id = chunks.document_id"
        " JOIN projects ON projects.id = project_documents.project_id"
        " WHERE projects.user_id IS NULL)"
    )
    op.execute(
        "DELETE FROM chunks WHERE document_id IN (SELECT project_documents.id"
        " FROM project_documents"
        " JOIN projects ON projects.id = project_documents.project_id"
        " WHERE projects.user_id IS NULL)"
    )
    op.execute(
        "DELETE FROM project_documents WHERE project_id IN"
        " (SELECT id FROM projects WHERE user_id IS NULL)"
    )
    op.execute("DELETE FROM projects WHERE user_id IS NULL")
    with op.batch_alter_table("projects") as batch:
        batch.alter_column("user_id", existing_type=sa.Uuid(), nullable=False)
