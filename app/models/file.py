from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Identified, Timestamped


class File(Identified, Timestamped, Base):
    """What a user uploaded: the row names it, and storage has its bytes.

    It is `pending` until it was looked into, then `ready`, or `rejected` for `reason`.
    Of a rejected one nothing is left in storage. Nobody has the same bytes twice.
    `width` and `height` are an image's pixels, `pages` are a document's. `scaled_size`
    are the bytes of what models get in place of an image that is beyond what they take;
    0 where it could not be scaled.
    `scanned` tells whether a virus scanner has seen it.
    """

    __tablename__ = "files"
    __table_args__ = (
        CheckConstraint("kind IN ('image', 'document', 'data')", name="kind"),
        CheckConstraint("status IN ('pending', 'ready', 'rejected')", name="status"),
        Index("ix_files_user_id", "user_id", "id"),
        Index("ix_files_user_id_sha256", "user_id", "sha256", unique=True,
              sqlite_where=text("status != 'rejected'"),
              postgresql_where=text("status != 'rejected'")),
    )  # fmt: skip

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(255))
    mime: Mapped[str] = mapped_column(String(127))
    kind: Mapped[str] = mapped_column(String(16))
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16), default="pending")
    reason: Mapped[str | None] = mapped_column(String(500))
    width: Mapped[int | None]
    height: Mapped[int | None]
    pages: Mapped[int | None]
    has_text: Mapped[bool] = mapped_column(default=False)
    has_thumbnail: Mapped[bool] = mapped_column(default=False)
    scaled_size: Mapped[int | None]
    scanned: Mapped[bool] = mapped_column(default=False)

    @property
    def why(self) -> str:
        """Its `reason`, as the end of another sentence."""
        return (self.reason or "").removesuffix(".")


class FileText(Base):
    """The text of a file, where one was found in it.

    `pages` are the offsets, in characters, at which its pages start; empty where it has
    none.
    """

    __tablename__ = "file_texts"

    file_id: Mapped[UUID] = mapped_column(
        ForeignKey("files.id", ondelete="CASCADE"), primary_key=True
    )
    text: Mapped[str] = mapped_column(Text)
    pages: Mapped[list[Any]] = mapped_column(JSON, default=list)
