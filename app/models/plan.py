from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Identified, Timestamped

FIRST_PLAN = "free"
"""What new users get."""


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


@dataclass(frozen=True, slots=True)
class Limits:
    """What one user may do: the plan's limits, but for the user's own.

    None is no limit. Credits are millionths of a US dollar; day and month are UTC's.
    """

    user_id: UUID
    plan: str
    daily_conversations: int | None
    monthly_credits: int | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    storage_bytes: int | None
    file_bytes: int | None
    project_tokens: int | None
    models: tuple[str, ...] | None

    def allows(self, model: str) -> bool:
        return self.models is None or is_among(model, self.models)


@lru_cache(maxsize=4096)
def is_among(model: str, patterns: tuple[str, ...]) -> bool:
    """Whether a model's name matches one of them; kept, since every call asks."""
    return any(fnmatchcase(model, pattern) for pattern in patterns)
