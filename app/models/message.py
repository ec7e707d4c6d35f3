from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    SmallInteger,
    String,
    Text,
    Uuid,
    case,
    cast,
    column,
    func,
    select,
    table,
    text,
)
from sqlalchemy.orm import Mapped, column_property, mapped_column

from app.core.database import utcnow
from app.models.base import Base, Identified, NullableJson

_UUID: Uuid[UUID] = Uuid()
_sibling = table(
    "messages",
    column("id", _UUID),
    column("parent_id", _UUID),
    column("chat_id", _UUID),
).alias("sibling")
_sibling_ids = select(func.aggregate_strings(cast(_sibling.c.id, String), " "))


class Message(Identified, Base):
    """One node of a chat's tree.

    `content` is a list of blocks in the shape of the Anthropic Messages API, and of
    references to files (see `services/file/attachments.py`). Only a
    reply that is being written has a lease: where it runs out, the process that wrote
    is gone. `attempt` counts how often the reply was continued, and `resumed_from` is
    the position in it (see `services/chat/reply.py`) that the last continuation found.
    `model` is the name that was asked for, and of a reply that has ended the model that
    wrote it, which is another one where a route was asked for.
    `credits` is what the reply has cost so far, of which `billed` is booked.
    `rating` is the user's own judgement of a reply: -1, 0 (none) or 1.
    """

    __tablename__ = "messages"
    __table_args__ = (
        CheckConstraint("role IN ('user', 'assistant')", name="role"),
        CheckConstraint(
            "status IN ('streaming', 'complete', 'stopped', 'interrupted', 'error')",
            name="status",
        ),
        CheckConstraint("rating IN (-1, 0, 1)", name="rating"),
        Index("ix_messages_chat_id", "chat_id", "id"),
        # By both, for the first messages of a chat have no parent but the chat.
        Index("ix_messages_parent_id_chat_id", "parent_id", "chat_id"),
        Index(
            "ix_messages_lease_expires_at",
            "lease_expires_at",
            sqlite_where=text("lease_expires_at IS NOT NULL"),
            postgresql_where=text("lease_expires_at IS NOT NULL"),
        ),
    )

    chat_id: Mapped[UUID] = mapped_column(ForeignKey("chats.id", ondelete="CASCADE"))
    # Without a cascade: SQLite recurses for each level of it, at most 1000. A message
    # is deleted with all below it in one statement, after which the key is checked.
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("messages.id"))
    role: Mapped[str] = mapped_column(String(16))
    content: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    citations: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    model: Mapped[str | None] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(16), default="complete")
    stop_reason: Mapped[str | None] = mapped_column(String(16))
    error: Mapped[dict[str, Any] | None] = mapped_column(NullableJson)
    usage: Mapped[dict[str, Any] | None] = mapped_column(NullableJson)
    credits: Mapped[int] = mapped_column(BigInteger, default=0)
    billed: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    attempt: Mapped[int] = mapped_column(default=0)
    resumed_from: Mapped[str | None] = mapped_column(String(64))
    lease_expires_at: Mapped[datetime | None]
    rating: Mapped[int] = mapped_column(SmallInteger, default=0)
    rating_comment: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    siblings: Mapped[str] = column_property(
        case(
            (
                parent_id.is_(None),
                _sibling_ids.where(
                    _sibling.c.chat_id == chat_id, _sibling.c.parent_id.is_(None)
                )
                .correlate_except(_sibling)
                .scalar_subquery(),
            ),
            else_=_sibling_ids.where(_sibling.c.parent_id == parent_id)
            .correlate_except(_sibling)
            .scalar_subquery(),
        ),
        deferred=True,
        raiseload=True,
        expire_on_flush=False,
    )
    """The ids of all with the same parent, its own among them, with spaces between.

    Not loaded unless a statement asks for it by `undefer`.
    """

    @property
    def sibling_ids(self) -> list[UUID]:
        """All with the same parent, itself among them, the oldest first."""
        return in_order(self.siblings)

    @property
    def text(self) -> str:
        return text_of(self.content)

    @property
    def attachments(self) -> list[dict[str, Any]]:
        return attachments_of(self.content)


class MessageSummary(Base):
    """What was said up to a message, itself included, in short.

    What stands above a message never changes, so it is true on every branch below.
    `files` are the blocks by which these messages named files.
    """

    __tablename__ = "message_summaries"

    message_id: Mapped[UUID] = mapped_column(
        ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True
    )
    text: Mapped[str] = mapped_column(Text)
    files: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)


def in_order(siblings: str) -> list[UUID]:
    """`Message.siblings` as ids, the oldest first."""
    return sorted(UUID(one) for one in siblings.split())


def text_of(content: Sequence[Mapping[str, Any]]) -> str:
    return "".join(b["text"] for b in content if b["type"] == "text")


def attachments_of(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The files that a message names."""
    return [
        {"id": b["file_id"], **{name: b[name] for name in _OF_FILE}}
        for b in content
        if b["type"] == "file"
    ]


_OF_FILE = ("name", "mime", "kind", "size")
