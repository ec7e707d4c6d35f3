from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import JSON, MetaData, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from uuid_utils.compat import uuid7

from app.core.columns import Id, UtcDateTime
from app.core.database import utcnow

# JSON, not JSONB, on PostgreSQL too: nothing queries inside, keys keep their order (a
# prompt's bytes must not change between turns), and any text fits, NUL included.
Json = JSON()
NullableJson = JSON(none_as_null=True)


class Sealed(Text):
    """Text that `Crypto` sealed, for the place `table.column:<the row's key>`.

    By this type `python -m app keys rotate` knows which columns to seal anew.
    """


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime(),
        UUID: Id(),
        dict[str, Any]: Json,
        list[dict[str, Any]]: Json,
    }


class Identified:
    """A UUIDv7 key: it sorts by the time of its making and counts nothing."""

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)


def first_id(moment: datetime) -> UUID:
    """Less than every key that is made from this moment on (RFC 9562, section 5.7)."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


class Timestamped:
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    updated_at: Mapped[datetime] = mapped_column(default=utcnow, onupdate=utcnow)
