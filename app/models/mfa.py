from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import utcnow
from app.models.base import Base, Identified, Sealed


class Authenticator(Identified, Base):
    """The TOTP secret of an account, of a user or of the desk.

    It counts once it is confirmed: until then its owner may never have seen it.
    """

    __tablename__ = "authenticators"

    account_id: Mapped[UUID] = mapped_column(unique=True)
    secret: Mapped[str] = mapped_column(Sealed)
    last_step: Mapped[int] = mapped_column(BigInteger, default=0)
    """The newest time step whose code was used: none up to it counts again."""
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    confirmed_at: Mapped[datetime | None]


class RecoveryCode(Identified, Base):
    """One that has not been used; known only by its SHA-256."""

    __tablename__ = "recovery_codes"

    authenticator_id: Mapped[UUID] = mapped_column(
        ForeignKey("authenticators.id", ondelete="CASCADE"), index=True
    )
    code_hash: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
