from typing import Any

from sqlalchemy import JSON, BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Identified, Timestamped


class Plan(Identified, Timestamped, Base):
    """What its users may do; null is no limit.

    Credits are millionths of a US dollar. `models` are the names of models that may be
    called, with `*` for any characters.
    """

    __tablename__ = "plans"

    name: Mapped[str] = mapped_column(String(32), unique=True)
    daily_conversations: Mapped[int | None]
    monthly_credits: Mapped[int | None] = mapped_column(BigInteger)
    requests_per_minute: Mapped[int | None]
    tokens_per_minute: Mapped[int | None]
    storage_bytes: Mapped[int | None] = mapped_column(BigInteger)
    file_bytes: Mapped[int | None] = mapped_column(BigInteger)
    project_tokens: Mapped[int | None]
    models: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
