"""API keys of users: each is known only by its SHA-256."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import utcnow
from app.models.base import Base, Identified, Json, Timestamped
from app.models.plan import is_among


class Key(Identified, Timestamped):
    """What keys of every kind have."""

    name: Mapped[str] = mapped_column(String(100))
    prefix: Mapped[str] = mapped_column(String(20), unique=True)
    key_hash: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    scopes: Mapped[list[str]] = mapped_column(Json)
    allowed_ips: Mapped[list[str]] = mapped_column(Json)
    """Networks in CIDR form; none of them is every one."""
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class ApiKey(Key, Base):
    """A limit that is null is none besides those of its user.

    A rotation may let the text of before work on for a while: it is the same key.
    """

    __tablename__ = "api_keys"

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    models: Mapped[list[str] | None] = mapped_column(Json)
    requests_per_minute: Mapped[int | None]
    tokens_per_minute: Mapped[int | None]
    daily_credit_limit: Mapped[int | None] = mapped_column(BigInteger)
    cache_seconds: Mapped[int | None]
    previous_prefix: Mapped[str | None] = mapped_column(String(20))
    previous_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32), unique=True)
    previous_until: Mapped[datetime | None]

    @property
    def previous(self) -> "PreviousKey | None":
        """What it was before the last rotation, while that still works."""
        if (
            self.previous_prefix is None
            or self.previous_until is None
            or self.previous_until <= utcnow()
        ):
            return None
        return PreviousKey(self.previous_prefix, self.previous_until)


@dataclass(frozen=True, slots=True)
class PreviousKey:
    prefix: str
    works_until: datetime


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What calls by one API key may use; None is no limit besides the user's own.

    Credits are millionths of a US dollar; a day is UTC's.
    """

    id: UUID
    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    daily_credit_limit: int | None = None
    cache_seconds: int | None = None
    """For how long equal calls of the gateway get the same answer; None is never."""

    def allows(self, model: str) -> bool:
        return self.models is None or is_among(model, self.models)
