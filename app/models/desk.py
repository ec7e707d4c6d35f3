"""Those who run the installation and help its users, and their sessions."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import utcnow
from app.models.base import Base, Identified, Json, Timestamped
from app.models.user import AnyRefreshToken


class DeskAccount(Identified, Timestamped, Base):
    """What both kinds have; names are stored in lower case, as those of users."""

    __abstract__ = True

    email: Mapped[str] = mapped_column(String(320), unique=True)
    username: Mapped[str] = mapped_column(String(32), unique=True)
    full_name: Mapped[str | None] = mapped_column(String(200))
    password_hash: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(16), default="active")


class Admin(DeskAccount):
    __tablename__ = "admins"
    __table_args__ = (
        CheckConstraint("status IN ('active', 'suspended')", name="status"),
    )

    permissions: Mapped[list[str]] = mapped_column(Json)


class SupportStaff(DeskAccount):
    __tablename__ = "support_staff"
    __table_args__ = (
        CheckConstraint("status IN ('active', 'suspended')", name="status"),
        CheckConstraint("level BETWEEN 1 AND 3", name="level"),
    )

    level: Mapped[int]


class DeskSession(Identified, Base):
    """One login of an admin or of a member of the staff."""

    __tablename__ = "desk_sessions"
    __table_args__ = (
        CheckConstraint("(admin_id IS NULL) <> (staff_id IS NULL)", name="owner"),
    )

    admin_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("admins.id", ondelete="CASCADE"), index=True
    )
    staff_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("support_staff.id", ondelete="CASCADE"), index=True
    )
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    last_used_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    ip: Mapped[str | None] = mapped_column(String(45))
    user_agent: Mapped[str | None] = mapped_column(String(255))


class DeskRefreshToken(AnyRefreshToken):
    __tablename__ = "desk_refresh_tokens"

    session_id: Mapped[UUID] = mapped_column(
        ForeignKey("desk_sessions.id", ondelete="CASCADE"), index=True
    )
