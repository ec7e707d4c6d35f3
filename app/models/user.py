"""Accounts of kind user, their sessions, and the refresh tokens of these."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import utcnow
from app.models.base import Base, Identified, NullableJson, Timestamped
from app.models.plan import FIRST_PLAN


class User(Identified, Timestamped, Base):
    """`email` and `username` are stored in lower case, so they are unique in any.

    Only an `active` account can be used. An `archived` one is kept as it is, for its
    owner is gone; of a `deleted` one this row is what is left beside `deleted_users`.
    `limits` are those that differ from the plan's, by the names of its columns.
    """

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint(
            "status IN ('active', 'suspended', 'archived', 'deleted')", name="status"
        ),
        Index("ix_users_status", "status", "id"),
    )

    email: Mapped[str] = mapped_column(String(320), unique=True)
    email_verified_at: Mapped[datetime | None]
    username: Mapped[str | None] = mapped_column(String(32), unique=True)
    full_name: Mapped[str | None] = mapped_column(String(200))
    password_hash: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(16), default="active")
    plan: Mapped[str] = mapped_column(
        ForeignKey("plans.name"), default=FIRST_PLAN, index=True
    )
    limits: Mapped[dict[str, Any] | None] = mapped_column(NullableJson)
    log_messages: Mapped[bool] = mapped_column(default=True)
    """Whether the message logs keep the text of this user's calls."""


class UserSession(Identified, Base):
    """One login; its refresh tokens are a family that ends with it."""

    __tablename__ = "user_sessions"

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    authenticated_at: Mapped[datetime] = mapped_column(default=utcnow)
    """When its user last proved who they are, not merely had a token refreshed."""
    last_used_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    ip: Mapped[str | None] = mapped_column(String(45))
    user_agent: Mapped[str | None] = mapped_column(String(255))


class AnyRefreshToken(Identified, Base):
    """A refresh token, known only by a keyed hash; used once, then replaced."""

    __abstract__ = True

    session_id: Mapped[UUID]
    token_hash: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    used_at: Mapped[datetime | None]


class RefreshToken(AnyRefreshToken):
    __tablename__ = "refresh_tokens"

    session_id: Mapped[UUID] = mapped_column(
        ForeignKey("user_sessions.id", ondelete="CASCADE"), index=True
    )
