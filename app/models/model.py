from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Identified, NullableJson, Timestamped


class RegisteredModel(Identified, Timestamped, Base):
    """What admins say of a model; null leaves a fact as it is known otherwise.

    `prices` are US dollars for a million tokens, as text: `input`, `output`, and
    perhaps `cache_read` and `cache_write`.
    """

    __tablename__ = "registered_models"

    name: Mapped[str] = mapped_column(String(200), unique=True)
    """As chats name it: `provider/id`."""
    enabled: Mapped[bool]
    """Whether it is on offer."""
    context_window: Mapped[int | None]
    max_output_tokens: Mapped[int | None]
    capabilities: Mapped[list[Any] | None] = mapped_column(NullableJson)
    prices: Mapped[dict[str, Any] | None] = mapped_column(NullableJson)
