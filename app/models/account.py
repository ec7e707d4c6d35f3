from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import utcnow
from app.models.base import Base


class DeletedUser(Base):
    """An account that was deleted, and can be restored until `purge_at`.

    `sealed` holds what stood in its row of `users`, and why it was deleted. That row
    stays, emptied, for all that the account owns to hang on; so nothing moves when it
    is restored, and erasing that row erases everything. See docs/adr/0009.
    """

    __tablename__ = "deleted_users"
    __table_args__ = (Index("ix_deleted_users_purge_at", "purge_at", "id"),)

    id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    sealed: Mapped[str] = mapped_column(Text)
    deleted_at: Mapped[datetime] = mapped_column(default=utcnow)
    deleted_by: Mapped[str] = mapped_column(String(16))
    deleted_by_id: Mapped[UUID | None]
    purge_at: Mapped[datetime]
