from datetime import date
from uuid import UUID

from sqlalchemy import BigInteger, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Identified


class UsageDay(Identified, Base):
    """What a user's calls of one kind, model and key came to on a day.

    `credits` is what they cost the user; `absorbed` what providers billed beyond that,
    which the installation bears. `estimated` counts the requests whose figures are
    ours. `key_id` is all zeros where there was no key: null would never be equal to
    itself. Like the ledger, it names a user by the id alone.
    """

    __tablename__ = "usage_days"
    __table_args__ = (UniqueConstraint("user_id", "day", "kind", "model", "key_id"),)

    user_id: Mapped[UUID]
    day: Mapped[date]
    kind: Mapped[str] = mapped_column(String(32))
    model: Mapped[str] = mapped_column(String(200))
    key_id: Mapped[UUID]
    requests: Mapped[int] = mapped_column(BigInteger)
    estimated: Mapped[int] = mapped_column(BigInteger)
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    cache_read_tokens: Mapped[int] = mapped_column(BigInteger)
    cache_write_tokens: Mapped[int] = mapped_column(BigInteger)
    credits: Mapped[int] = mapped_column(BigInteger)
    absorbed: Mapped[int] = mapped_column(BigInteger)
