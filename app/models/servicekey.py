"""Keys of external applications, and the usage that these report."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import utcnow
from app.models.apikey import Key
from app.models.base import Base, Identified


class ServiceKey(Key, Base):
    """Issued by an admin; it may look into tokens, and acts for nobody."""

    __tablename__ = "service_keys"


class ReportedUsage(Identified, Base):
    """What a user used up in an external application."""

    __tablename__ = "reported_usage"
    __table_args__ = (
        # A report that is sent twice counts once.
        UniqueConstraint("service_key_id", "report_id"),
        CheckConstraint("amount > 0", name="amount"),
    )

    service_key_id: Mapped[UUID] = mapped_column(ForeignKey("service_keys.id"))
    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    report_id: Mapped[UUID]
    kind: Mapped[str] = mapped_column(String(64))
    amount: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
