"""Passages of projects get vectors, by a model for embeddings.

Revision ID: b61d0f83c7a5
Revises: 2c9f71e4a8d6
"""

import sqlalchemy as sa

from alembic import op

revision = "b61d0f83c7a5"
down_revision = "2c9f71e4a8d6"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "project_documents", sa.Column("embedder", sa.String(length=255), nullable=True)
    )
    op.add_column(
        "project_documents",
        sa.Column("embedded", sa.Integer(), nullable=False, server_default="0"),
    )
    op.create_index(
        "ix_project_documents_project_id_state_embedder_embedded_chunks",
        "project_documents",
        ["project_id", "state", "embedder", "embedded", "chunks", "id"],
    )
    op.create_table(
        "chunk_vectors",
        sa.Column(
            "chunk_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["chunk_id"],
            ["chunks.id"],
            name=op.f("fk_chunk_vectors_chunk_id_chunks"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("chunk_id", name=op.f("pk_chunk_vectors")),
    )
    if op.get_bind().dialect.name == "postgresql":
        # Floats do not compress: it would try with each of them.
        op.execute("ALTER TABLE chunk_vectors ALTER vector SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.execute("DELETE FROM jobs WHERE name LIKE 'knowledge.embed%'")
    op.drop_table("chunk_vectors")
    op.drop_index(
        "ix_project_documents_project_id_state_embedder_embedded_chunks",
        "project_documents",
    )
    op.drop_column("project_documents", "embedded")
    op.drop_column("project_documents", "embedder")
