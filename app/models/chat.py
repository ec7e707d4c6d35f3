from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import utcnow
from app.models.base import Base, Identified, Timestamped


class Chat(Identified, Timestamped, Base):
    """`updated_at` is the time of its last turn or change: lists run by it.

    `leaf_id` is where the branch that people see ends: its newest message, or the one
    that they chose. Who sends a message moves it on from the leaf they knew, so of two
    at once only one can. A `temporary` chat is in no list and no search, and goes
    when nobody has used it for a day. Its owner may have left the project that it is
    bound to, so whoever reads something of that asks for it anew.
    """

    __tablename__ = "chats"
    __table_args__ = (
        Index("ix_chats_user_id_temporary_archived_pinned_updated_at", "user_id",
              "temporary", "archived", "pinned", "updated_at", "id"),
        Index("ix_chats_updated_at", "updated_at",
              sqlite_where=text('"temporary" = 1'),
              postgresql_where=text('"temporary"')),
        Index("ix_chats_project_id_user_id", "project_id", "user_id"),
    )  # fmt: skip

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    project_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("projects.id", ondelete="SET NULL")
    )
    title: Mapped[str | None] = mapped_column(String(200))
    model: Mapped[str] = mapped_column(String(200))
    system_prompt: Mapped[str | None] = mapped_column(Text)
    # No foreign key: it would close a circle, and chat and messages go together anyway.
    leaf_id: Mapped[UUID | None]
    archived: Mapped[bool] = mapped_column(default=False)
    pinned: Mapped[bool] = mapped_column(default=False)
    temporary: Mapped[bool] = mapped_column(default=False)


class ChatShare(Identified, Base):
    """A link for everybody to one branch of a chat; a chat has at most one.

    The branch is what leads to `message_id`. That message alone may still change (its
    reply can be continued), so it is kept here as it stood; all above it stay.
    """

    __tablename__ = "chat_shares"

    chat_id: Mapped[UUID] = mapped_column(
        ForeignKey("chats.id", ondelete="CASCADE"), unique=True
    )
    message_id: Mapped[UUID] = mapped_column(
        ForeignKey("messages.id", ondelete="CASCADE"), index=True
    )
    token_hash: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    title: Mapped[str | None] = mapped_column(String(200))
    content: Mapped[list[dict[str, Any]]]
    citations: Mapped[list[dict[str, Any]]]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)


class SearchEntry(Base):
    """The words of one message, or of a chat's title where `message_id` is null.

    The full-text index is built on it by the database itself (see docs/adr/0004), and
    SQLite's wants a number as the key.
    """

    __tablename__ = "search_entries"

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True
    )
    chat_id: Mapped[UUID] = mapped_column(
        ForeignKey("chats.id", ondelete="CASCADE"), index=True
    )
    message_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("messages.id", ondelete="CASCADE"), unique=True
    )
    terms: Mapped[str] = mapped_column(Text)
