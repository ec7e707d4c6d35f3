"""All that a user owns as one zip, made while it is sent, in bounded memory.

Tables as JSON Lines, for programs, and chats as Markdown, for people. It tells nothing
of when it was made: while nothing changes, two exports are the same bytes.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import orjson
from sqlalchemy import RowMapping, Table, select

from app.core.database import Database
from app.core.exceptions import NotFoundError
from app.models import Base, Chat
from app.services.account import holdings
from app.services.authorization import Principal
from app.services.chat import export as chats
from app.services.chat.reply import Follower
from app.services.principal import Principals

MEDIA_TYPE = "application/zip"
FILE_NAME = "workroom.zip"

_BATCH = 20  # a message may be as large as a request's body


class _Outgoing:
    """A file that cannot be turned back; what was written is taken out at once."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        """All is where it goes already."""

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


async def content(
    database: Database, principals: Principals, principal: Principal
) -> AsyncIterator[bytes]:
    """The zip's bytes. Each batch of rows is read in a transaction of its own.

    Raises UnauthenticatedError where the session ends meanwhile.
    """
    follower = Follower()
    with principals.following(principal, follower):
        async for piece in _zip(database, principal.user_id):
            if follower.closed_by is not None:
                raise follower.closed_by
            yield piece


async def _zip(database: Database, user_id: UUID) -> AsyncIterator[bytes]:
    outgoing = _Outgoing()
    with ZipFile(outgoing, "w", ZIP_DEFLATED) as archive:  # type: ignore[call-overload]  # it needs no more than `write`
        async for name, pieces in _files(database, user_id):
            with archive.open(ZipInfo(name), "w", force_zip64=True) as file:
                async for piece in pieces:
                    # What is packed is as large as a batch: not in the event loop.
                    await asyncio.to_thread(file.write, piece)
                    yield outgoing.taken()
    yield outgoing.taken()


async def _files(
    database: Database, user_id: UUID
) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    """Each file's name and content; a table without rows has none."""
    for table in holdings.tables():
        if holdings.OWNED[table.name].not_exported is None:
            keys = await _keys(database, table, user_id)
            if keys:
                yield f"{table.name}.jsonl", _lines(database, table, keys)
    for chat_id in await _keys(database, Base.metadata.tables["chats"], user_id):
        async with database.unit_of_work(read_only=True) as session:
            chat = await session.get(Chat, chat_id)
        if chat is not None:  # deleted meanwhile
            yield _name(chat), _markdown(database, chat)


async def _keys(database: Database, table: Table, user_id: UUID) -> Sequence[Any]:
    """Of all rows: reading by them costs the same at the end as at the beginning."""
    (key,) = table.primary_key.columns
    mine = select(key).where(holdings.owned_by(table, user_id)).order_by(key)
    async with database.unit_of_work(read_only=True) as session:
        return (await session.scalars(mine)).all()


async def _lines(
    database: Database, table: Table, keys: Sequence[Any]
) -> AsyncIterator[bytes]:
    hidden = holdings.OWNED[table.name].hidden
    (key,) = table.primary_key.columns
    shown = [column for column in table.columns if column.name not in hidden]
    for start in range(0, len(keys), _BATCH):
        some = key.in_(keys[start : start + _BATCH])
        async with database.unit_of_work(read_only=True) as session:
            found = await session.execute(select(*shown).where(some).order_by(key))
            rows = found.mappings().all()
        yield b"".join(map(_line, rows))


def _line(row: RowMapping) -> bytes:
    return orjson.dumps(dict(row), option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)


async def _markdown(database: Database, chat: Chat) -> AsyncIterator[bytes]:
    try:
        async for piece in chats.content(database, chat, "md"):
            yield piece
    except NotFoundError as error:  # its messages are in another file all the same
        yield f"\n*({error.detail})*\n".encode()


def _name(chat: Chat) -> str:
    title = re.sub(r"[^\w.-]+", " ", chat.title or "").strip(" .")[:80] or "chat"
    # The end of an id is drawn at random; its beginning is the time.
    return f"chats/{chat.created_at:%Y-%m-%d} {title} {chat.id.hex[-8:]}.md"
