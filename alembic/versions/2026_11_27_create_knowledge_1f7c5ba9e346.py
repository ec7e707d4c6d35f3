"""Documents of projects, and the index by which they are searched.

Revision ID: 1f7c5ba9e346
Revises: d4e8a13b70f2
"""

import sqlalchemy as sa

from alembic import op

revision = "1f7c5ba9e346"
down_revision = "d4e8a13b70f2"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "project_documents",
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=True),
        sa.Column("title", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("characters", sa.Integer(), nullable=False),
        sa.Column("indexed", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("terms", sa.BigInteger(), nullable=False),
        sa.Column("pages", sa.JSON(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'indexing', 'ready', 'failed', 'deleted')",
            name=op.f("ck_project_documents_state"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_project_documents_project_id_projects"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["file_id"],
            ["files.id"],
            name=op.f("fk_project_documents_file_id_files"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project_documents")),
    )
    op.create_index("ix_project_documents_file_id", "project_documents", ["file_id"])
    op.create_index(
        "ix_project_documents_project_id_state_chunks_terms_tokens",
        "project_documents",
        ["project_id", "state", "chunks", "terms", "tokens"],
    )
    _create_chunks()
    _create_postings()


def _create_chunks() -> None:
    op.create_table(
        "chunks",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("end", sa.Integer(), nullable=False),
        sa.Column("page", sa.Integer(), nullable=True),
        sa.Column("lead", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["project_documents.id"],
            name=op.f("fk_chunks_document_id_project_documents"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chunks")),
    )
    op.create_index("ix_chunks_document_id", "chunks", ["document_id"])


def _create_postings() -> None:
    op.create_table(
        "postings",
        sa.Column("key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column(
            "chunk_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("count", sa.SmallInteger(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["chunk_id"],
            ["chunks.id"],
            name=op.f("fk_postings_chunk_id_chunks"),
            ondelete="CASCADE",
        ),
        # Ranking reads nothing but this index: it holds the whole row.
        sa.PrimaryKeyConstraint(
            "key",
            "chunk_id",
            name=op.f("pk_postings"),
            postgresql_include=["count", "length"],
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_postings_chunk_id", "postings", ["chunk_id"])


def downgrade() -> None:
    op.execute("DELETE FROM jobs WHERE name LIKE 'knowledge.%'")
    op.drop_table("postings")
    op.drop_table("chunks")
    op.drop_table("project_documents")
