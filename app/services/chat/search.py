"""Finding chats by the words of their titles and messages.

Words are made here and nowhere else, for the index and for the query, so both
databases find the same, and no sign in a query can mean anything to either of them.
Entries go with their messages and chats, by foreign key; see docs/adr/0004-search.md.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import TypeVar
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    String,
    Text,
    UpdateBase,
    Uuid,
    bindparam,
    cast,
    column,
    delete,
    exists,
    false,
    func,
    literal_column,
    select,
    table,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import Database
from app.core.statements import Many, Statement
from app.integrations.search.words import UNSPACED
from app.models import Chat, Message, SearchEntry

MOST_WORDS = 10
"""Of a query; what comes after them is not looked at."""

_MOST_CHARACTERS = 100_000  # of a message: what one entry may hold is limited
_LONGEST_WORD = 40
_BATCH = 200
_ACCENTS = re.compile("[\u0300-\u036f]")
_WORD = re.compile(f"[{UNSPACED}]|[^\\W_{UNSPACED}]+")
M = TypeVar("M", Chat, Message)
_Insert = TypeVar("_Insert", sqlite.Insert, postgresql.Insert)

_OWNER = func.replace(cast(Chat.user_id, String), "-", "")


def words(text: str) -> list[str]:
    """Each different word, without case and accents, in the order of the text."""
    plain = unicodedata.normalize("NFKD", text[:_MOST_CHARACTERS])
    folded = unicodedata.normalize("NFKC", _ACCENTS.sub("", plain)).casefold()
    found = _WORD.findall(folded[:_MOST_CHARACTERS])
    return list(dict.fromkeys(word[:_LONGEST_WORD] for word in found))


async def index_messages(session: AsyncSession, messages: Sequence[Message]) -> None:
    """Make messages that are stored in this transaction findable as they are now.

    Those of temporary chats are left out.
    """
    rows = [
        {"chat": m.chat_id, "message": m.id, "terms": " ".join(words(m.text))}
        for m in messages
    ]
    if rows:
        await (await session.connection()).execute(_upsert(session), rows)


def entries(texts: Sequence[tuple[UUID, UUID, str]]) -> Many:
    """The same as a statement, for texts with the chat and message they are of.

    What was deleted meanwhile is left out, too.
    """
    return _OF_MESSAGES.each(
        [
            {"chat": chat, "message": message, "terms": " ".join(words(text))}
            for chat, message, text in texts
        ]
    )


async def unindexed(database: Database, most: int) -> list[tuple[UUID, UUID, str]]:
    """Of the newest so many messages those that cannot be found: of a lost process."""
    newest = (
        select(Message.id).order_by(Message.id.desc()).limit(most).scalar_subquery()
    )
    statement = (
        select(Message)
        .join(Chat, Chat.id == Message.chat_id)
        .where(
            Message.id.in_(newest),
            Message.status != "streaming",
            Chat.temporary.is_(False),
            ~exists().where(SearchEntry.message_id == Message.id),
        )
    )
    async with database.unit_of_work(read_only=True) as session:
        found = (await session.scalars(statement)).all()
    return [(one.chat_id, one.id, one.text) for one in found]


async def index_title(session: AsyncSession, chat_id: UUID, title: str | None) -> None:
    """The same for a chat's title, which replaces the one before."""
    await session.execute(
        delete(SearchEntry).where(
            SearchEntry.chat_id == chat_id, SearchEntry.message_id.is_(None)
        )
    )
    if title is not None:
        row = {"chat": chat_id, "message": None, "terms": " ".join(words(title))}
        connection = await session.connection()
        await connection.execute(_upsert(session), row)


def holding(
    session: AsyncSession, user_id: UUID, query: str
) -> list[ColumnElement[bool]]:
    """Conditions on chats: each word stands in the title or in some message.

    The last word may be the beginning of one. A query without a word finds nothing.
    """
    asked = words(query)[:MOST_WORDS]
    if not asked:
        return [false()]
    matches = _MATCHES[_dialect(session)]
    return [
        Chat.id.in_(
            select(SearchEntry.chat_id).where(
                matches(user_id.hex, word, begins=word == asked[-1])
            )
        )
        for word in asked
    ]


async def reindex(database: Database) -> None:
    """Index all there is: for a database from before there was an index."""
    last: UUID | None = None
    while batch := await _after(database, Chat, last):
        async with database.unit_of_work() as session:
            for chat in batch:
                await index_title(session, chat.id, chat.title)
        last = batch[-1].id
    last = None
    while messages := await _after(database, Message, last):
        async with database.unit_of_work() as session:
            # What is being written is indexed at its end.
            ended = [m for m in messages if m.status != "streaming"]
            await index_messages(session, ended)
        last = messages[-1].id


async def _after(database: Database, model: type[M], last: UUID | None) -> Sequence[M]:
    statement = select(model).order_by(model.id).limit(_BATCH)
    if last is not None:
        statement = statement.where(model.id > last)
    async with database.unit_of_work(read_only=True) as session:
        return (await session.scalars(statement)).all()


def _dialect(session: AsyncSession) -> str:
    return session.get_bind().dialect.name


def _upsert(session: AsyncSession) -> UpdateBase:
    construct = _UPSERT.construct_for(_dialect(session))
    assert isinstance(construct, UpdateBase)
    return construct


def _upserting(insert: _Insert, *, if_there: bool = False) -> _Insert:
    """`if_there`: the message may have been deleted."""
    # The owner is one of the words: what other people wrote costs a search nothing.
    entry = select(
        Chat.id,
        bindparam("message", type_=Uuid()),
        func.rtrim(_OWNER + " " + bindparam("terms", type_=Text())),
    ).where(Chat.id == bindparam("chat"), Chat.temporary.is_(False))
    if if_there:
        # Locked, where that is known, so that it stays until this is stored.
        entry = entry.join(
            Message, Message.id == bindparam("message", type_=Uuid())
        ).with_for_update(read=True, key_share=True, of=Message)
    insert = insert.from_select(["chat_id", "message_id", "terms"], entry)
    return insert.on_conflict_do_update(
        index_elements=["message_id"], set_={"terms": insert.excluded.terms}
    )


def _in_sqlite(owner: str, word: str, *, begins: bool) -> ColumnElement[bool]:
    index = table("search_index", column("rowid"), column("search_index"))
    query = f'"{owner}" AND "{word}"{"*" if begins else ""}'
    return SearchEntry.id.in_(
        select(index.c.rowid).where(index.c.search_index.op("MATCH")(query))
    )


def _in_postgresql(owner: str, word: str, *, begins: bool) -> ColumnElement[bool]:
    # Word for word the expression of the index.
    vector: ColumnElement[str] = literal_column(
        "array_to_tsvector(string_to_array(search_entries.terms, ' '))"
    )
    query = f"'{owner}' & '{word}'{':*' if begins else ''}"
    return vector.bool_op("@@")(cast(query, postgresql.TSQUERY))


_UPSERT = Statement(
    _upserting(sqlite.insert(SearchEntry)),
    postgresql=_upserting(postgresql.insert(SearchEntry)),
)
_OF_MESSAGES = Statement(
    _upserting(sqlite.insert(SearchEntry), if_there=True),
    postgresql=_upserting(postgresql.insert(SearchEntry), if_there=True),
)
_MATCHES = {"sqlite": _in_sqlite, "postgresql": _in_postgresql}
