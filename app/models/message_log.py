from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import utcnow
from app.models.base import Base, Identified, Sealed


class MessageLog(Identified, Base):
    """One call of a model: who, what, how much, how long.

    The id was made when the call ended, so ids sort by that time, and stand for it.
    """

    __tablename__ = "message_logs"
    __table_args__ = (Index("ix_message_logs_user_id_id", "user_id", "id"),)

    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    username: Mapped[str] = mapped_column(String(320))
    """As it was then; the address of who had no name."""
    kind: Mapped[str] = mapped_column(String(32))
    model: Mapped[str] = mapped_column(String(200))
    messages: Mapped[str | None] = mapped_column(Sealed)
    """JSON, a list of what was asked and answered."""
    input_tokens: Mapped[int]
    output_tokens: Mapped[int]
    credits: Mapped[int] = mapped_column(BigInteger)
    latency_ms: Mapped[int]
    status: Mapped[str] = mapped_column(String(16))
