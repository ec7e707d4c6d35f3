"""Deleted accounts, as the desk sees them."""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.crypto import Crypto, CryptoError
from app.core.exceptions import FieldError, ValidationFailedError
from app.models import DeletedUser
from app.schemas.account import DeletedUserRead
from app.services.account import sealing

_BATCH = 200


async def listing(
    session: AsyncSession,
    crypto: Crypto,
    *,
    email: str | None,
    limit: int,
    cursor: str | None,
    offset: int,
) -> tuple[Sequence[DeletedUserRead], str | None]:
    """A page, the last deleted first, and the cursor of the next one.

    With an `email` all that had it, on one page: what is sealed cannot be searched by
    the database, so each is opened (some 10,000 a second).
    """
    position = _position(cursor) if cursor is not None else None
    if email is not None:
        return await _with_address(session, crypto, email), None
    rows = await _after(session, position, limit=limit + 1, offset=offset)
    page = rows[:limit]
    following = _cursor(page[-1]) if len(rows) > limit else None
    return [read(crypto, row) for row in page], following


def read(crypto: Crypto, deleted: DeletedUser) -> DeletedUserRead:
    try:
        content = sealing.unseal(crypto, deleted.id, deleted.sealed)
    except CryptoError:
        content = sealing.Content({}, None)
    return DeletedUserRead(
        id=deleted.id,
        email=content.row.get("email"),
        username=content.row.get("username"),
        full_name=content.row.get("full_name"),
        reason=content.reason,
        deleted_by=deleted.deleted_by,
        deleted_by_id=deleted.deleted_by_id,
        deleted_at=deleted.deleted_at,
        purge_at=deleted.purge_at,
    )


async def _with_address(
    session: AsyncSession, crypto: Crypto, email: str
) -> list[DeletedUserRead]:
    found: list[DeletedUserRead] = []
    position: tuple[datetime, UUID] | None = None
    while rows := await _after(session, position, limit=_BATCH):
        opened = (read(crypto, row) for row in rows)
        found += [one for one in opened if one.email == email]
        position = rows[-1].purge_at, rows[-1].id
    return found


async def _after(
    session: AsyncSession,
    position: tuple[datetime, UUID] | None,
    *,
    limit: int,
    offset: int = 0,
) -> Sequence[DeletedUser]:
    columns = (DeletedUser.purge_at, DeletedUser.id)
    statement = select(DeletedUser).order_by(*(column.desc() for column in columns))
    if position is not None:
        statement = statement.where(tuple_(*columns) < position)
    return (await session.scalars(statement.limit(limit).offset(offset))).all()


def _cursor(deleted: DeletedUser) -> str:
    place = f"{deleted.purge_at.isoformat()} {deleted.id.hex}"
    return base64.urlsafe_b64encode(place.encode()).decode()


def _position(cursor: str) -> tuple[datetime, UUID]:
    try:
        time, row_id = base64.urlsafe_b64decode(cursor.encode()).decode().split(" ")
        return datetime.fromisoformat(time).astimezone(UTC), UUID(row_id)
    except (ValueError, OverflowError, binascii.Error) as error:
        message = "is no cursor of this list: send a `next_cursor` unchanged"
        raise ValidationFailedError(
            f"`cursor` {message}.", errors=[FieldError(path="cursor", message=message)]
        ) from error
