"""Pages of lists that run from the newest row to the oldest, along their keys.

A page costs the same at any depth: its cursor is the key of the row before it.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Protocol, TypeVar
from uuid import UUID

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import FieldError, ValidationFailedError
from app.models import Base


class Paging(Protocol):
    """Where a page is: after `cursor`, or after `offset` rows."""

    @property
    def limit(self) -> int: ...

    @property
    def cursor(self) -> str | None: ...

    @property
    def offset(self) -> int: ...


M = TypeVar("M", bound=Base)


async def page(
    session: AsyncSession, statement: Select[M], model: type[M], at: Paging
) -> tuple[Sequence[M], str | None]:
    """The rows, and the cursor of the next page; None on the last one."""
    key = model.id  # type: ignore[attr-defined]  # every model here is Identified
    if at.cursor is not None:
        statement = statement.where(key < _key(at.cursor))
    found = await session.scalars(
        statement.order_by(key.desc()).limit(at.limit + 1).offset(at.offset)
    )
    rows = found.all()
    if len(rows) <= at.limit:
        return rows, None
    shown = rows[: at.limit]
    return shown, _cursor(shown[-1].id)  # type: ignore[attr-defined]  # the same


def _cursor(key: UUID) -> str:
    return base64.urlsafe_b64encode(key.bytes).decode()


def _key(cursor: str) -> UUID:
    try:
        return UUID(bytes=base64.urlsafe_b64decode(cursor.encode()))
    except (ValueError, binascii.Error) as error:
        message = "is no cursor of this list: send a `next_cursor` unchanged"
        raise ValidationFailedError(
            f"`cursor` {message}.", errors=[FieldError(path="cursor", message=message)]
        ) from error
