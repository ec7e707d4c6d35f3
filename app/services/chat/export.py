"""Chats as files, and branches read from end to end, in bounded memory.

Each batch is a transaction of its own, so that no connection waits for a slow reader.
"""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Literal
from urllib.parse import quote
from uuid import UUID

import orjson
from sqlalchemy import select
from sqlalchemy.orm import undefer
from sqlalchemy.sql.base import ExecutableOption

from app.core.database import Database, utcnow
from app.core.exceptions import NotFoundError
from app.models import Chat, Message
from app.schemas.chat import ChatRead
from app.schemas.message import MessageRead
from app.services.chat import branches, markdown
from app.services.chat.history import size

Format = Literal["json", "md"]
MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "md": "text/markdown; charset=utf-8",
}

_BATCH = 20
_MOST_AT_ONCE = 2**20  # characters, if it is more than one message


def disposition(chat: Chat, kind: Format) -> str:
    """The header that makes a browser save it, under the chat's title (RFC 6266)."""
    name = re.sub(r"[^\w.-]+", " ", chat.title or "").strip(" .")[:80] or "chat"
    plain = name.encode("ascii", "ignore").decode().strip() or "chat"
    return (
        f'attachment; filename="{plain}.{kind}"; '
        f"filename*=UTF-8''{quote(name, safe='')}.{kind}"
    )


def content(database: Database, chat: Chat, kind: Format) -> AsyncIterator[bytes]:
    """The whole tree as JSON, or the branch that is shown as Markdown."""
    return _json(database, chat) if kind == "json" else _markdown(database, chat)


async def branch(
    database: Database, chat_id: UUID, leaf_id: UUID
) -> AsyncIterator[Sequence[Message]]:
    """The messages down to `leaf_id`, the first first, in batches.

    Raises NotFoundError where some are deleted meanwhile.
    """
    async with database.unit_of_work(read_only=True) as session:
        ids = await branches.line(session, chat_id, leaf_id)
    left = len(ids)
    async for messages in _read(database, ids):
        yield messages
        left -= len(messages)
    if left:
        raise NotFoundError("Some of these messages have been deleted.")


async def _json(database: Database, chat: Chat) -> AsyncIterator[bytes]:
    head = {
        "format": "workroom.chat/1",
        "exported_at": utcnow(),
        "chat": ChatRead.model_validate(chat).model_dump(mode="json"),
    }
    yield orjson.dumps(head).removesuffix(b"}") + b',"messages":['
    comma = b""
    async for messages in _tree(database, chat.id):
        reads = [MessageRead.model_validate(m).model_dump_json() for m in messages]
        yield comma + ",".join(reads).encode()
        comma = b","
    yield b"]}\n"


async def _tree(database: Database, chat_id: UUID) -> AsyncIterator[Sequence[Message]]:
    """All messages of a chat, by their age."""
    of_chat = select(Message.id).where(Message.chat_id == chat_id).order_by(Message.id)
    async with database.unit_of_work(read_only=True) as session:
        ids = (await session.scalars(of_chat)).all()
    async for messages in _read(database, ids, undefer(Message.siblings)):
        yield messages


async def _read(
    database: Database, ids: Sequence[UUID], *options: ExecutableOption
) -> AsyncIterator[Sequence[Message]]:
    """These messages in their order, in batches; without those that are no more."""
    for start in range(0, len(ids), _BATCH):
        async for batch in _batches(database, ids[start : start + _BATCH]):
            statement = select(Message).where(Message.id.in_(batch)).options(*options)
            async with database.unit_of_work(read_only=True) as session:
                rows = {one.id: one for one in await session.scalars(statement)}
            if rows:
                yield [rows[one] for one in batch if one in rows]


async def _batches(
    database: Database, ids: Sequence[UUID]
) -> AsyncIterator[Sequence[UUID]]:
    """Cut up by size: a message with images may be as large as a request's body."""
    statement = select(Message.id, size(Message)).where(Message.id.in_(ids))
    async with database.unit_of_work(read_only=True) as session:
        sizes = {row[0]: row[1] for row in await session.execute(statement)}
    batch: list[UUID] = []
    room = _MOST_AT_ONCE
    for one in filter(sizes.__contains__, ids):
        if batch and sizes[one] > room:
            yield batch
            batch, room = [], _MOST_AT_ONCE
        batch.append(one)
        room -= sizes[one]
    if batch:
        yield batch


async def _markdown(database: Database, chat: Chat) -> AsyncIterator[bytes]:
    yield f"# {chat.title or 'Chat'}\n".encode()
    if chat.leaf_id is None:
        return
    async for messages in branch(database, chat.id, chat.leaf_id):
        for message in messages:
            yield markdown.section(message).encode()
