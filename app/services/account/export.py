"""All that a user owns as one zip, made while it is sent, in bounded memory.

Tables as JSON Lines, for programs, chats as Markdown, for people, and files. It tells
nothing of when it was made: while nothing changes, two exports are the same bytes.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from typing import Any
from uuid import UUID
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import orjson
from sqlalchemy import RowMapping, Table, select

from app.core.database import Database
from app.core.exceptions import NotFoundError
from app.integrations.storage.base import MissingObjectError, Storage
from app.models import Base, Chat, File
from app.services.account import holdings
from app.services.authorization import Principal
from app.services.chat import export as chats
from app.services.chat.reply import Follower
from app.services.file import places
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
    database: Database,
    storage: Storage,
    principals: Principals,
    principal: Principal,
) -> AsyncGenerator[bytes]:
    """The zip's bytes. Each batch of rows is read in a transaction of its own.

    Raises UnauthenticatedError where the session ends meanwhile.
    """
    follower = Follower()
    with principals.following(principal, follower):
        async with aclosing(_zip(database, storage, principal.user_id)) as pieces:
            async for piece in pieces:
                if follower.closed_by is not None:
                    raise follower.closed_by
                yield piece


async def _zip(
    database: Database, storage: Storage, user_id: UUID
) -> AsyncGenerator[bytes]:
    outgoing = _Outgoing()
    with ZipFile(outgoing, "w") as archive:  # type: ignore[call-overload]  # it needs no more than `write`
        async for name, pieces in _entries(database, storage, user_id):
            entry = ZipInfo(name)
            entry.compress_type = ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                async for piece in pieces:
                    # What is packed is as large as a batch: not in the event loop.
                    await asyncio.to_thread(file.write, piece)
                    yield outgoing.taken()
    yield outgoing.taken()


async def _entries(
    database: Database, storage: Storage, user_id: UUID
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
    for file_id in await _keys(database, Base.metadata.tables["files"], user_id):
        async with database.unit_of_work(read_only=True) as session:
            file = await session.get(File, file_id)
        # Of a rejected one nothing is left, and a pending one may hold a virus.
        if file is not None and file.status == "ready":
            yield f"files/{file.id.hex[-8:]} {file.name}", _content(storage, file)


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
    options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
    return orjson.dumps(dict(row), default=str, option=options)


async def _markdown(database: Database, chat: Chat) -> AsyncIterator[bytes]:
    try:
        async for piece in chats.content(database, chat, "md"):
            yield piece
    except NotFoundError as error:  # its messages are in another file all the same
        yield f"\n*({error.detail})*\n".encode()


async def _content(storage: Storage, file: File) -> AsyncIterator[bytes]:
    with suppress(MissingObjectError):  # deleted meanwhile: the entry stays empty
        async for piece in storage.read(places.original(file.user_id, file.id)):
            yield piece


def _name(chat: Chat) -> str:
    title = re.sub(r"[^\w-]+", " ", chat.title or "").strip()[:80] or "chat"
    # The end of an id is drawn at random; its beginning is the time.
    return f"chats/{chat.created_at:%Y-%m-%d} {title} {chat.id.hex[-8:]}.md"
