from datetime import datetime

from sqlalchemy import CheckConstraint, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import utcnow
from app.models.base import Base, Identified


class IpRule(Identified, Base):
    """A range of addresses that may, or may not, use the service or the desk."""

    __tablename__ = "ip_rules"
    __table_args__ = (
        CheckConstraint("scope IN ('service', 'desk')", name="scope"),
        CheckConstraint("action IN ('allow', 'deny')", name="action"),
        UniqueConstraint("scope", "action", "network"),
    )

    scope: Mapped[str] = mapped_column(String(16))
    action: Mapped[str] = mapped_column(String(16))
    network: Mapped[str] = mapped_column(String(43))
    """In CIDR notation, without host bits."""
    note: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
