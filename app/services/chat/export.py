"""Chats as files, and branches read from end to end, in bounded memory.

Each batch is a transaction of its own, so that no connection waits for a slow reader.
"""

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Literal
from urllib.parse import quote
from uuid import UUID

import orjson
from sqlalchemy import select
from sqlalchemy.orm import undefer

from app.core.database import Database, utcnow
from app.core.exceptions import NotFoundError
from app.models import Chat, Message
from app.schemas.chat import ChatRead
from app.schemas.message import MessageRead
from app.services.chat import branches

Format = Literal["json", "md"]
MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "md": "text/markdown; charset=utf-8",
}

_BATCH = 20  # a message may be as large as a request's body
_SPEAKERS = {"user": "You", "assistant": "Assistant"}


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
    for start in range(0, len(ids), _BATCH):
        wanted = ids[start : start + _BATCH]
        async with database.unit_of_work(read_only=True) as session:
            found = await session.scalars(select(Message).where(Message.id.in_(wanted)))
            rows = {message.id: message for message in found}
        if len(rows) < len(wanted):
            raise NotFoundError("Some of these messages have been deleted.")
        yield [rows[one] for one in wanted]


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
    statement = (
        select(Message)
        .where(Message.chat_id == chat_id)
        .order_by(Message.id)
        .limit(_BATCH)
        .options(undefer(Message.siblings))
    )
    following = statement
    while True:
        async with database.unit_of_work(read_only=True) as session:
            messages = (await session.scalars(following)).all()
        if not messages:
            return
        yield messages
        following = statement.where(Message.id > messages[-1].id)


async def _markdown(database: Database, chat: Chat) -> AsyncIterator[bytes]:
    yield f"# {chat.title or 'Chat'}\n".encode()
    if chat.leaf_id is None:
        return
    async for messages in branch(database, chat.id, chat.leaf_id):
        for message in messages:
            yield "".join(_section(message)).encode()


def _section(message: Message) -> Iterator[str]:
    model = f" ({message.model})" if message.model else ""
    yield f"\n## {_SPEAKERS[message.role]}{model}\n\n{message.text.strip()}\n"
    sources = dict.fromkeys(c["source"] for c in message.citations)
    if sources:
        yield "\nSources: " + ", ".join(sources) + "\n"
    if message.status != "complete":
        yield f"\n*({message.status})*\n"
