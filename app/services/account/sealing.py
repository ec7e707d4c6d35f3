"""A user's row as sealed text, and what stays in its place."""

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Column, LargeBinary, Table, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import TypeEngine

from app.core.columns import Id, UtcDateTime
from app.core.crypto import Crypto
from app.core.passwords import NO_PASSWORD
from app.models import User

_USERS: Table = User.__table__  # type: ignore[assignment]  # a mapped class's Table
_READ: dict[type[TypeEngine[Any]], Callable[[str], Any]] = {
    UtcDateTime: datetime.fromisoformat,
    Id: UUID,
    LargeBinary: b64decode,
}
"""How a column's value is made again of its JSON; the rest is JSON itself."""


@dataclass(frozen=True, slots=True)
class Content:
    """What of a deleted user is sealed: the columns of their row, by name, and why."""

    row: dict[str, Any]
    reason: str | None


async def seal(
    session: AsyncSession, crypto: Crypto, user_id: UUID, *, reason: str | None
) -> str:
    found = await session.execute(select(_USERS).where(_USERS.c.id == user_id))
    content = {"row": dict(found.mappings().one()), "reason": reason}
    text = orjson.dumps(content, default=_text).decode()
    return crypto.seal(text, place=_place(user_id))


def unseal(crypto: Crypto, user_id: UUID, sealed: str) -> Content:
    """Raises CryptoError where the key is lost.

    Columns that came since are missing in it; those that went since are left out.
    """
    content = orjson.loads(crypto.open(sealed, place=_place(user_id)))
    row = {
        column.name: _value(column, content["row"][column.name])
        for column in _USERS.columns
        if column.name in content["row"]
    }
    return Content(row, content["reason"])


def emptied(user_id: UUID) -> dict[str, Any]:
    """What stays in `users`: the id, and nothing of the person.

    The address is none: nobody can register it, and no look-up of addresses finds it.
    Foreign keys stay, so that what they lead to is still there for a restoration.
    """
    needed = {
        "email": f"deleted:{user_id}",
        "password_hash": NO_PASSWORD,
        "status": "deleted",
    }
    rest = (
        column
        for column in _USERS.columns
        if column.name not in {"id", *needed} and not column.foreign_keys
    )
    return needed | {column.name: _nothing(column) for column in rest}


def _nothing(column: Column[Any]) -> Any:
    if column.nullable:
        return None
    default: Any = column.default
    assert default is not None, f"say in `emptied` what an empty users.{column} is"
    return default.arg(None) if default.is_callable else default.arg


def _text(value: Any) -> str:
    """What JSON has no form for."""
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _value(column: Column[Any], value: Any) -> Any:
    read = _READ.get(type(column.type))
    return value if value is None or read is None else read(value)


def _place(user_id: UUID) -> str:
    return f"deleted_users.sealed:{user_id}"
