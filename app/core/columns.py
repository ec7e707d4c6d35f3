"""Types of columns that are the same on every database."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, SafeUUID

from sqlalchemy import DateTime, Dialect, TypeDecorator, Uuid


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time on every database; SQLite itself forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002 - SQLAlchemy gives it
    ) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def bind_processor(
        self, dialect: Dialect
    ) -> Callable[[datetime | None], Any] | None:
        if dialect.name == "sqlite":  # in one step to its text
            return _text_of
        return super().bind_processor(dialect)

    def result_processor(
        self, dialect: Dialect, coltype: object
    ) -> Callable[[Any], datetime | None] | None:
        if dialect.name == "sqlite":  # in one step from its text
            return lambda text: text and datetime.fromisoformat(f"{text}+00:00")
        return self.impl_instance.result_processor(dialect, coltype)


def _text_of(value: datetime | None) -> str | None:
    """As SQLAlchemy writes it, which SQLite compares as text."""
    if value is None:
        return None
    if value.tzinfo is not UTC:
        value = value.astimezone(UTC)
    return "%04d-%02d-%02d %02d:%02d:%02d.%06d" % (  # noqa: UP031 - the other ways take twice as long
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
    )


class Id(TypeDecorator[UUID]):
    """A UUID; SQLite's text becomes one in a third of the time that UUID() takes."""

    impl = Uuid
    cache_ok = True

    def result_processor(
        self, dialect: Dialect, coltype: object
    ) -> Callable[[Any], UUID | None] | None:
        if dialect.name == "sqlite":
            return _uuid
        return self.impl_instance.result_processor(dialect, coltype)


def _uuid(text: str | None) -> UUID | None:
    if text is None:
        return None
    made = UUID.__new__(UUID)
    # As unpickling does it: nothing is checked.
    object.__setattr__(made, "int", int(text, 16))
    object.__setattr__(made, "is_safe", SafeUUID.unknown)
    return made
