from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, Integer, Uuid, and_, bindparam, literal, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.core.database import Database
from app.core.exceptions import BadRequestError, FieldError, ValidationFailedError
from app.core.statements import Statement
from app.models import Chat, Message
from app.schemas.message import MESSAGE_COLUMNS, Rating, message_row
from app.services.authorization import Principal, owned, require
from app.services.chat.history import size

_MOST_CHARACTERS = 8_000_000
"""Of a page's content as JSON; a message alone may be larger."""


async def page(
    database: Database,
    principal: Principal,
    chat_id: UUID,
    *,
    limit: int,
    cursor: str | None,
    leaf: UUID | None,
) -> tuple[list[dict[str, Any]], str | None]:
    """A branch from `leaf` (by default the chat's newest message) up, newest first.

    One statement that walks parents: it costs the same in a chat of any length. Rows
    of `MessageRead`'s fields, not objects: people read little else as often. A page of
    large messages ends before `limit`.
    """
    start = _cursor_id(cursor) if cursor is not None else leaf
    known = {"owner": principal.user_id, "chat": chat_id, "limit": limit}
    if start is not None:
        known["start"] = start
    asked = _page(from_leaf=start is None)(**known)
    rows = (await database.run(asked, brief=True)).rows
    if not rows:
        async with database.unit_of_work(read_only=True) as session:
            await require(session, principal, Chat, chat_id)
            if start is not None:
                await require(session, principal, Message, start)
    above = rows[-1]["parent_id"] if rows else None
    return [message_row(row) for row in rows], above.hex if above else None


async def get(session: AsyncSession, principal: Principal, message_id: UUID) -> Message:
    return await require(session, principal, Message, message_id)


async def rate(
    session: AsyncSession, principal: Principal, message_id: UUID, form: Rating
) -> Message:
    """Raises BadRequestError for a message that is no reply."""
    message = await require(session, principal, Message, message_id)
    if message.role != "assistant":
        raise BadRequestError("Only a reply can be rated; this is a user's message.")
    message.rating = form.value
    message.rating_comment = form.comment
    await session.flush()
    return message


@cache
def _page(*, from_leaf: bool) -> Statement:
    line = _line(from_leaf=from_leaf)
    columns = [getattr(Message, name) for name in MESSAGE_COLUMNS]
    return Statement(
        select(*columns).join(line, line.c.id == Message.id).order_by(line.c.depth)
    )


def _line(*, from_leaf: bool) -> CTE:
    chat = (
        select(Chat.id, Chat.leaf_id)
        .where(
            owned(Chat, bindparam("owner", type_=Uuid())),
            Chat.id == bindparam("chat", type_=Uuid()),
        )
        .subquery()
    )
    start = chat.c.leaf_id if from_leaf else bindparam("start", type_=Uuid())
    line = (
        select(
            Message.id,
            Message.parent_id,
            literal(1).label("depth"),
            size(Message).label("size"),
        )
        .join(chat, and_(Message.chat_id == chat.c.id, Message.id == start))
        .cte("line", recursive=True)
    )
    parent = aliased(Message)
    total = line.c.size + size(parent)
    return line.union_all(
        select(parent.id, parent.parent_id, line.c.depth + 1, total)
        .join(line, parent.id == line.c.parent_id)
        .where(
            line.c.depth < bindparam("limit", type_=Integer()),
            total <= literal(_MOST_CHARACTERS, Integer()),
        )
    )


def _cursor_id(cursor: str) -> UUID:
    try:
        return UUID(cursor)
    except ValueError as error:
        message = "is no cursor of this list: send a `next_cursor` unchanged"
        raise ValidationFailedError(
            f"`cursor` {message}.", errors=[FieldError(path="cursor", message=message)]
        ) from error
