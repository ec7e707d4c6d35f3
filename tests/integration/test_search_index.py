"""Messages become findable soon, whatever happens to some of them."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy import delete, select, text

from app.core.database import Database
from app.models import Chat, Message, SearchEntry, User
from app.services.chat.search_index import SearchIndex
from tests.conftest import on_sqlite


@pytest.fixture
async def chat(database: Database) -> Chat:
    user = User(email="ada@example.com", password_hash="none")
    async with database.unit_of_work() as session:
        session.add(user)
        await session.flush()
        chat = Chat(user_id=user.id, model="guide/manual")
        session.add(chat)
    return chat


@pytest.fixture
async def index(database: Database) -> AsyncIterator[SearchIndex]:
    index = SearchIndex(database)
    yield index
    await index.close()


async def say(database: Database, chat: Chat, words: str) -> Message:
    content = [{"type": "text", "text": words}]
    message = Message(chat_id=chat.id, role="user", status="complete", content=content)
    async with database.unit_of_work() as session:
        session.add(message)
    return message


async def indexed(database: Database) -> set[UUID | None]:
    async with database.unit_of_work(read_only=True) as session:
        return set(await session.scalars(select(SearchEntry.message_id)))


async def test_what_waits_is_stored_together(
    database: Database, chat: Chat, index: SearchIndex
) -> None:
    said = [await say(database, chat, f"word{n}") for n in range(3)]
    statements: list[str] = []
    for message in said:
        index.add(chat.id, message.id, message.text)

    database.watchers.append(statements.append)
    await index.settle()

    assert await indexed(database) == {message.id for message in said}
    assert len(statements) == 1


async def test_a_start_finds_what_a_lost_process_left(
    database: Database, chat: Chat, index: SearchIndex
) -> None:
    left = await say(database, chat, "left behind")
    streaming = await say(database, chat, "not yet")
    async with database.unit_of_work() as session:
        (await session.get_one(Message, streaming.id)).status = "streaming"

    await index.open()
    await index.settle()

    assert await indexed(database) == {left.id}


async def test_a_close_stores_what_waits(database: Database, chat: Chat) -> None:
    index = SearchIndex(database)
    await index.open()
    message = await say(database, chat, "last words")
    index.add(chat.id, message.id, message.text)

    await index.close()

    assert await indexed(database) == {message.id}


async def test_what_was_deleted_meanwhile_is_left_out(
    database: Database, chat: Chat, index: SearchIndex
) -> None:
    gone, kept = [await say(database, chat, words) for words in ("gone", "kept")]
    for message in (gone, kept):
        index.add(chat.id, message.id, message.text)
    async with database.unit_of_work() as session:
        await session.execute(delete(Message).where(Message.id == gone.id))

    await index.settle()

    assert await indexed(database) == {kept.id}


@on_sqlite
async def test_one_that_the_database_refuses_costs_no_other(
    database: Database, chat: Chat, index: SearchIndex
) -> None:
    async with database.unit_of_work() as session:
        await session.execute(
            text(
                "CREATE TRIGGER refuse BEFORE INSERT ON search_entries "
                "WHEN new.terms LIKE '%poison%' BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        )
    said = [await say(database, chat, words) for words in ("one", "poison", "two")]
    for message in said:
        index.add(chat.id, message.id, message.text)

    await index.settle()

    assert await indexed(database) == {said[0].id, said[2].id}
