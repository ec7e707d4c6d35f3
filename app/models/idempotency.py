from datetime import datetime
from uuid import UUID

from sqlalchemy import LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import utcnow
from app.models.base import Base, Identified


class IdempotencyKey(Identified, Base):
    """What a request with an `Idempotency-Key` was answered.

    It is written in the transaction of what the request did, so that it is there
    exactly if that is. `status` is null where the answer was a reply's stream: then
    `resource_id` is that reply. `body` is null where the answer held a secret.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("owner_id", "key"),)

    owner_id: Mapped[UUID]
    """The user, admin, member of the staff, or service key that sent it."""
    key: Mapped[str] = mapped_column(String(255))
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary(32))
    resource_id: Mapped[UUID | None]
    status: Mapped[int | None]
    media_type: Mapped[str | None] = mapped_column(String(100))
    body: Mapped[bytes | None]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime] = mapped_column(index=True)
