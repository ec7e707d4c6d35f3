from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import utcnow
from app.models.base import Base, Identified


class MailLink(Identified, Base):
    """A link that was asked for, mailed to `email` once it has a `token_hash`.

    It works once, for its purpose, and for the account of that address alone. Where
    addresses must be verified, a `register` link is a sign-up too: only with the link
    does it become an account, so it belongs to no user, and has what that one needs.
    """

    __tablename__ = "mail_links"
    __table_args__ = (
        CheckConstraint(
            "purpose IN ('register', 'verify', 'change', 'reset', 'invite')",
            name="purpose",
        ),
        Index("ix_mail_links_email_created_at", "email", "created_at"),
    )

    purpose: Mapped[str] = mapped_column(String(16))
    email: Mapped[str] = mapped_column(String(320))
    user_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    token_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32), unique=True)
    ip: Mapped[str | None] = mapped_column(String(45))
    """Of who asked, for the owner of the address to recognise."""
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]

    username: Mapped[str | None] = mapped_column(String(32))
    full_name: Mapped[str | None] = mapped_column(String(200))
    password_hash: Mapped[str | None] = mapped_column(String(255))
