"""Money: the ledger, the balance that is its sum, and what processes hold of it.

Amounts are credits, millionths of a US dollar (docs/adr/0003). How the tables work
together tells docs/adr/0009.
"""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    SmallInteger,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import utcnow
from app.models.base import Base, Identified


class CreditAccount(Base):
    """A user's balance, and how much of it processes have leased.

    `period` is the month (2026-11) that it was filled up for last. `conversations` are
    those of `day` that are used or leased. The `warned` columns hold the percentage
    that its user was told of last, in that period and on that day.
    """

    __tablename__ = "credit_accounts"
    __table_args__ = (
        CheckConstraint("leased >= 0", name="leased"),
        CheckConstraint("balance >= leased", name="balance"),
    )

    id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    balance: Mapped[int] = mapped_column(BigInteger, default=0)
    leased: Mapped[int] = mapped_column(BigInteger, default=0)
    period: Mapped[str | None] = mapped_column(String(7))
    day: Mapped[date | None]
    conversations: Mapped[int] = mapped_column(default=0)
    warned_credits: Mapped[int] = mapped_column(SmallInteger, default=0)
    warned_conversations: Mapped[int] = mapped_column(SmallInteger, default=0)


class CreditEntry(Identified, Base):
    """A line of the ledger: it is added, and never changed or deleted.

    A month's grant has its `period`, which a user gets once. The ledger outlives its
    users, whom it names by their ids alone: hence no foreign key.
    """

    __tablename__ = "credit_entries"
    __table_args__ = (
        CheckConstraint("kind IN ('grant', 'usage', 'adjustment')", name="kind"),
        CheckConstraint("amount <> 0", name="amount"),
        UniqueConstraint("user_id", "period"),
        Index("ix_credit_entries_user_id", "user_id", "id"),
    )

    user_id: Mapped[UUID]
    kind: Mapped[str] = mapped_column(String(16))
    amount: Mapped[int] = mapped_column(BigInteger)
    period: Mapped[str | None] = mapped_column(String(7))
    note: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(default=utcnow)


class CreditHolder(Identified, Base):
    """A process that leases credits; where it expires, its process is gone.

    `sequence` counts what it has written, so that nothing is written twice: also not by
    one that comes back long after others have taken its leases back, which is why its
    row outlives them.
    """

    __tablename__ = "credit_holders"

    sequence: Mapped[int] = mapped_column(BigInteger, default=0)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    taken_back_at: Mapped[datetime | None]


class CreditLease(Identified, Base):
    """What a process may spend for a user without asking.

    `spent` of its `credits` are spent, but not in the ledger yet; `conversations` are
    not used yet.
    """

    __tablename__ = "credit_leases"
    __table_args__ = (
        UniqueConstraint("holder_id", "user_id"),
        CheckConstraint("spent >= 0", name="spent"),
        CheckConstraint("credits >= spent", name="credits"),
    )

    holder_id: Mapped[UUID] = mapped_column(ForeignKey("credit_holders.id"))
    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("credit_accounts.id", ondelete="CASCADE"), index=True
    )
    credits: Mapped[int] = mapped_column(BigInteger, default=0)
    spent: Mapped[int] = mapped_column(BigInteger, default=0)
    day: Mapped[date | None]
    conversations: Mapped[int] = mapped_column(default=0)


class KeyLease(Identified, Base):
    """What a process may spend by an API key on a day, of the key's daily limit.

    What it has spent is in `usage_days`, and here no more.
    """

    __tablename__ = "key_leases"
    __table_args__ = (
        UniqueConstraint("holder_id", "key_id", "day"),
        CheckConstraint("credits >= 0", name="credits"),
    )

    holder_id: Mapped[UUID] = mapped_column(ForeignKey("credit_holders.id"))
    key_id: Mapped[UUID] = mapped_column(
        ForeignKey("api_keys.id", ondelete="CASCADE"), index=True
    )
    day: Mapped[date]
    credits: Mapped[int] = mapped_column(BigInteger)
