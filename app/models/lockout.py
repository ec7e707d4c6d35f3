from datetime import datetime
from uuid import UUID

from sqlalchemy import LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Identified


class LoginCounter(Identified, Base):
    """Failed logins of an account, of an account at one place, or of an address.

    `key` is a keyed hash: the table tells neither addresses nor what was typed as a
    name. `account_id` is a user's, or that of an account of the desk; null for
    addresses and for names that nobody has.
    """

    __tablename__ = "login_counters"

    key: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    account_id: Mapped[UUID | None] = mapped_column(index=True)
    failures: Mapped[int] = mapped_column(default=0)
    forget_at: Mapped[datetime | None]
    """When the failures count no more."""
    locked_until: Mapped[datetime | None]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    """When the row may be deleted; of a place, when it is known no longer."""
