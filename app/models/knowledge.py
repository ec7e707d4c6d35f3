"""What documents say: their text, its passages, and by what these are found."""

from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Identified, Timestamped

Number = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up integers alone, which have 64 bits there."""


class ProjectDocument(Identified, Timestamped, Base):
    """A text that a project's chats lean on: that of a file, or a pasted one.

    It is found when it is `ready`; a `deleted` one is there until a job has taken it
    out of the index. `version` counts how often its text was taken up to
    be indexed; `indexed` is how many of its characters have been by now. `pages` are
    the offsets at which its pages start; empty where it has none. `chunks` and `terms`
    are what search needs of each to know the average passage's length. `embedder` names
    the model that made its vectors, of `embedded` chunks by now.
    """

    __tablename__ = "project_documents"
    __table_args__ = (
        CheckConstraint(
            "state IN ('pending', 'indexing', 'ready', 'failed', 'deleted')",
            name="state",
        ),
        Index("ix_project_documents_project_id_state_chunks_terms_tokens",
              "project_id", "state", "chunks", "terms", "tokens"),
        # It holds what tells of vectors: SQLite walks through a text, however long, to
        # what stands behind it in the row.
        Index("ix_project_documents_project_id_state_embedder_embedded_chunks",
              "project_id", "state", "embedder", "embedded", "chunks", "id"),
    )  # fmt: skip

    project_id: Mapped[UUID] = mapped_column(
        ForeignKey("projects.id", ondelete="CASCADE")
    )
    file_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("files.id", ondelete="CASCADE"), index=True
    )
    title: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(16), default="pending")
    version: Mapped[int] = mapped_column(default=1)
    characters: Mapped[int]
    indexed: Mapped[int] = mapped_column(default=0)
    tokens: Mapped[int]
    chunks: Mapped[int] = mapped_column(default=0)
    terms: Mapped[int] = mapped_column(BigInteger, default=0)
    embedder: Mapped[str | None] = mapped_column(String(255))
    embedded: Mapped[int] = mapped_column(default=0)
    pages: Mapped[list[Any]] = mapped_column(JSON, default=list)
    text: Mapped[str] = mapped_column(Text, deferred=True, deferred_raiseload=True)

    @property
    def progress(self) -> float:
        """How much of it is indexed, 0 to 1."""
        if self.state == "ready":
            return 1.0
        return self.indexed / max(self.characters, 1)


class Chunk(Base):
    """A passage: `text` equals its document's text from `start` to `end`.

    `lead` is what it cannot be read without, the head of the table that it is a row of.
    """

    __tablename__ = "chunks"

    id: Mapped[int] = mapped_column(Number, primary_key=True)
    document_id: Mapped[UUID] = mapped_column(
        ForeignKey("project_documents.id", ondelete="CASCADE"), index=True
    )
    start: Mapped[int]
    end: Mapped[int]
    page: Mapped[int | None]
    lead: Mapped[str] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)


class Posting(Base):
    """That a chunk has a term so many times, among `length` terms in all.

    `key` stands for the term in that project alone (see `services/knowledge/terms.py`).
    """

    __tablename__ = "postings"
    __table_args__ = (
        # Ranking reads nothing but this index: it holds the whole row.
        PrimaryKeyConstraint("key", "chunk_id", postgresql_include=["count", "length"]),
        {
            "sqlite_with_rowid": False,
            # PostgreSQL reads the table, too, for what came since the last vacuum: a
            # search takes five times as long there. By default that comes when a fifth
            # of the table is new, now within a minute; it takes milliseconds.
            "postgresql_with": {"autovacuum_vacuum_insert_scale_factor": "0"},
        },
    )

    key: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    chunk_id: Mapped[int] = mapped_column(
        ForeignKey("chunks.id", ondelete="CASCADE"), index=True, autoincrement=False
    )
    count: Mapped[int] = mapped_column(SmallInteger)
    length: Mapped[int]


class ChunkVector(Base):
    """What a chunk means, by its document's `embedder`: a vector of length 1.

    It is 4 bytes for each number, floats in little-endian order.
    """

    __tablename__ = "chunk_vectors"

    chunk_id: Mapped[int] = mapped_column(
        ForeignKey("chunks.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    vector: Mapped[bytes] = mapped_column(LargeBinary)
