from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Identified, Timestamped


class Setting(Identified, Timestamped, Base):
    """A setting that admins changed; where the environment has it, that counts."""

    __tablename__ = "settings"

    variable: Mapped[str] = mapped_column(String(100), unique=True)
    value: Mapped[str] = mapped_column(Text)
    """As the environment would have it."""
