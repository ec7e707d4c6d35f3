from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Identified, Timestamped


class Chat(Identified, Timestamped, Base):
    """`updated_at` is the time of its last turn or change: lists run by it.

    `leaf_id` is its newest message, where the branch that people see ends. Who adds a
    message moves it on from the leaf they knew, so of two at once only one can.
    """

    __tablename__ = "chats"
    __table_args__ = (
        Index("ix_chats_user_id_archived_updated_at", "user_id", "archived",
              "updated_at", "id"),
    )  # fmt: skip

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    title: Mapped[str | None] = mapped_column(String(200))
    model: Mapped[str] = mapped_column(String(200))
    system_prompt: Mapped[str | None] = mapped_column(Text)
    # No foreign key: it would close a circle, and chat and messages go together anyway.
    leaf_id: Mapped[UUID | None]
    archived: Mapped[bool] = mapped_column(default=False)
