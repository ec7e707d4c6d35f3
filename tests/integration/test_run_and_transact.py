"""Statements without a session: types, transactions, errors, and lost connections."""

import asyncio
import socket
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    Uuid,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from uuid_utils.compat import uuid7

from app.core.database import Database
from app.core.exceptions import AppError, NotFoundError, UnavailableError
from app.core.statements import Result, Script, Statement
from app.models import Chat, Message
from tests.conftest import SettingsFactory, on_postgresql, on_sqlite

CHATS = Chat.__table__
ADD_CHAT = Statement(insert(Chat))
ADD_MESSAGE = Statement(insert(Message))
CHAT = Statement(
    select(*CHATS.columns, literal(7).label("seven")).where(
        Chat.id == bindparam("id", type_=Uuid()),
        Chat.model.in_(["guide/manual", "none/such"]),
    )
)
MESSAGE = Statement(select(Message).where(Message.id == bindparam("id", type_=Uuid())))
RENAME = Statement(
    update(Chat)
    .where(Chat.id == bindparam("chat", type_=Uuid()))
    .values(title=bindparam("title"), updated_at=bindparam("now"))
)
REMOVE = Statement(
    delete(Chat)
    .where(Chat.id == bindparam("id", type_=Uuid()))
    .returning(Chat.id, Chat.pinned)
)
COUNT = Statement(select(func.count().label("chats")).select_from(Chat))


class KeptError(AppError):
    keeps_changes = True


def chat_row(owner: UUID, **changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "id": uuid7(),
        "user_id": owner,
        "title": None,
        "model": "guide/manual",
        "system_prompt": None,
        "leaf_id": None,
        "project_id": None,
        "archived": False,
        "pinned": False,
        "temporary": False,
        "created_at": now,
        "updated_at": now,
    } | changes


async def count(database: Database) -> int:
    (row,) = (await database.run(COUNT())).rows
    found: int = row["chats"]
    return found


async def test_values_come_back_as_they_went_in(
    database: Database, owner: UUID
) -> None:
    paris = datetime(2026, 3, 1, 12, 30, 0, 5, timezone(timedelta(hours=1)))
    row = chat_row(owner, pinned=True, title="Ünï🙂", created_at=paris)
    assert await database.run(ADD_CHAT(**row)) == Result([], 1)

    found = await database.run(CHAT(id=row["id"]))

    assert found == Result([row | {"seven": 7}], 1)
    (chat,) = found.rows
    assert isinstance(chat["id"], UUID)
    assert chat["pinned"] is True
    assert chat["archived"] is False
    assert chat["created_at"].tzinfo == UTC
    async with database.unit_of_work(read_only=True) as session:
        stored = await session.get_one(Chat, row["id"])
    assert {name: getattr(stored, name) for name in row} == row


async def test_json_and_nulls_are_what_a_session_stores(
    database: Database, owner: UUID
) -> None:
    chat = chat_row(owner)
    message = Message(
        chat_id=chat["id"],
        role="user",
        content=[{"type": "text", "text": 'a "b" \0 é'}],
    )
    async with database.unit_of_work() as session:
        session.add(Chat(**chat))
        await session.flush()
        session.add(message)
    (stored,) = (await database.run(MESSAGE(id=message.id))).rows

    copy = stored | {"id": uuid7()}
    await database.run(ADD_MESSAGE(**copy))

    assert stored["content"] == message.content
    assert stored["usage"] is None
    assert (await database.run(MESSAGE(id=copy["id"]))).rows == [copy]
    async with database.unit_of_work(read_only=True) as session:
        kinds = await session.execute(
            text("SELECT count(*) FROM messages WHERE usage IS NULL")
        )
    assert kinds.scalar_one() == 2


async def test_all_values_must_be_given_and_no_others(
    database: Database, owner: UUID
) -> None:
    for values in ({}, {"id": owner, "other": 1}):
        with pytest.raises(TypeError, match="'id'"):
            await database.run(CHAT(**values))


async def test_a_script_sees_results_and_is_committed(
    database: Database, owner: UUID
) -> None:
    row = chat_row(owner, pinned=True)

    def script() -> Script[str]:
        yield ADD_CHAT(**row)
        (found,) = (yield CHAT(id=row["id"])).rows
        renamed = yield RENAME(chat=row["id"], title="New", now=row["updated_at"])
        missed = yield RENAME(chat=owner, title="New", now=row["updated_at"])
        return f"{found['model']} {renamed.rowcount} {missed.rowcount}"

    assert await database.transact(script()) == "guide/manual 1 0"
    (stored,) = (await database.run(CHAT(id=row["id"]))).rows
    assert stored["title"] == "New"
    removed = await database.run(REMOVE(id=row["id"]))
    assert removed == Result([{"id": row["id"], "pinned": True}], 1)
    assert await count(database) == 0


@pytest.mark.parametrize(
    ("error", "kept"), [(NotFoundError, 0), (KeptError, 1), (ZeroDivisionError, 0)]
)
async def test_what_a_script_raises_rolls_back_unless_it_keeps_changes(
    database: Database, owner: UUID, error: type[Exception], kept: int
) -> None:
    def script() -> Script[None]:
        yield ADD_CHAT(**chat_row(owner))
        raise error("so it is")

    with pytest.raises(error, match="so it is"):
        await database.transact(script())

    assert await count(database) == kept
    await database.run(ADD_CHAT(**chat_row(owner)))
    assert await count(database) == kept + 1


async def test_a_broken_constraint_is_raised_in_the_script(
    database: Database, owner: UUID
) -> None:
    row = chat_row(owner)

    def script(*, translate: bool) -> Script[None]:
        yield ADD_CHAT(**row)
        try:
            yield ADD_CHAT(**row)
        except IntegrityError as error:
            if translate:
                raise NotFoundError("It is there.") from error
            raise

    for translate, error in ((True, NotFoundError), (False, IntegrityError)):
        with pytest.raises(error):
            await database.transact(script(translate=translate))
        assert await count(database) == 0
    assert await count(database) == 0


async def test_errors_do_not_tell_what_people_wrote(
    database: Database, owner: UUID
) -> None:
    """Nor do the driver's, of which a traceback in the log would tell, too."""
    row = chat_row(owner, title="a secret", model=None)

    async def by_session() -> None:
        async with database.unit_of_work() as session:
            session.add(Chat(**row))

    def script() -> Script[None]:
        yield ADD_CHAT(**row)

    for work in (
        by_session(),
        database.run(ADD_CHAT(**row)),
        database.transact(script()),
    ):
        with pytest.raises(IntegrityError) as caught:
            await work
        assert "model" in str(caught.value)
        assert "secret" not in "".join(traceback.format_exception(caught.value))


async def test_a_wrong_statement_is_no_outage(database: Database, owner: UUID) -> None:
    wrong = Statement(select(text("nothing_such AS wrong")))
    with pytest.raises(DBAPIError):
        await database.run(wrong())

    assert await count(database) == 0


async def test_writers_wait_for_each_other(database: Database, owner: UUID) -> None:
    row = chat_row(owner, title="0")
    await database.run(ADD_CHAT(**row))
    read = Statement(
        select(Chat.title, Chat.updated_at)
        .where(Chat.id == bindparam("id", type_=Uuid()))
        .with_for_update()
    )

    def script() -> Script[None]:
        (found,) = (yield read(id=row["id"])).rows
        title = str(int(found["title"]) + 1)
        yield RENAME(chat=row["id"], title=title, now=found["updated_at"])

    await asyncio.gather(*(database.transact(script()) for _ in range(30)))

    (stored,) = (await database.run(CHAT(id=row["id"]))).rows
    assert stored["title"] == "30"


async def test_who_gets_no_connection_in_time_is_told_so(
    settings_with: SettingsFactory, database: Database
) -> None:
    settings = settings_with(DB_POOL_SIZE="1", DB_POOL_TIMEOUT="0.05")
    small = Database(settings)
    release = asyncio.Event()
    holder = asyncio.create_task(
        small._connections.use(lambda _: release.wait())  # as a slow statement would
    )
    await asyncio.sleep(0)

    with pytest.raises(UnavailableError) as caught:
        await small.run(COUNT())

    assert caught.value.code == "database_unavailable"
    release.set()
    await holder
    assert await count(small) == 0
    await small.close()


async def test_a_closed_database_leaves_no_connection(
    settings_with: SettingsFactory, database: Database
) -> None:
    other = Database(settings_with())
    await asyncio.gather(*(count(other) for _ in range(3)))
    idle = list(other._connections._idle)
    assert 1 <= len(idle) <= 3

    await other.close()

    assert all(connection.lost for connection in idle)


@on_sqlite
async def test_who_is_cancelled_on_sqlite_keeps_nobody_waiting(
    database: Database, owner: UUID
) -> None:
    loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def script() -> Script[None]:
        yield ADD_CHAT(**chat_row(owner))
        loop.call_soon_threadsafe(begun.set)
        go_on.wait()

    writer = asyncio.create_task(database.transact(script()))
    await begun.wait()
    writer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writer
    assert await count(database) == 0  # readers do not wait for it

    go_on.set()
    await database.run(ADD_CHAT(**chat_row(owner)))  # the next writer does

    assert await count(database) == 2


@on_postgresql
async def test_who_is_cancelled_on_postgresql_leaves_nothing_behind(
    database: Database, owner: UUID
) -> None:
    sleep = Statement(select(func.pg_sleep(60).label("slept")))
    sleeping = Statement(
        select(func.count().label("chats"))
        .select_from(text("pg_stat_activity"))
        .where(text("query LIKE '%pg_sleep(%' AND wait_event = 'PgSleep'"))
    )

    def script() -> Script[None]:
        yield ADD_CHAT(**chat_row(owner))
        yield sleep()

    async def sleepers() -> int:
        (row,) = (await database.run(sleeping())).rows
        found: int = row["chats"]
        return found

    for work in (database.transact(script()), database.run(sleep())):
        task = asyncio.create_task(work)
        async with asyncio.timeout(10):
            while not await sleepers():  # noqa: ASYNC110 - it sleeps elsewhere
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert await sleepers() == 0  # nor any lock that they held
        await database.run(ADD_CHAT(**chat_row(owner)))
    assert await count(database) == 2


GOODBYE = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0"


def cut(connection: Any) -> None:
    """As where the network ends: nobody has noticed yet."""
    wire = connection._driver._transport.get_extra_info("socket")
    wire.shutdown(socket.SHUT_RDWR)


def say_goodbye(connection: Any) -> None:
    """As a server that shuts down, in the moment before it closes its end."""
    length = (len(GOODBYE) + 4).to_bytes(4)
    connection._driver._protocol.data_received(b"E" + length + GOODBYE)


@on_postgresql
@pytest.mark.parametrize(
    ("lose", "noticed"), [(cut, False), (cut, True), (say_goodbye, False)]
)
async def test_a_connection_that_died_idle_is_replaced(
    database: Database, owner: UUID, lose: Callable[[Any], None], *, noticed: bool
) -> None:
    row = chat_row(owner)

    def script() -> Script[None]:
        yield ADD_CHAT(**row)

    for work in (count(database), database.transact(script()), count(database)):
        await asyncio.gather(*(count(database) for _ in range(3)))
        idle = list(database._connections._idle)
        for connection in idle:
            lose(connection)
        while noticed and not all(c.lost for c in idle):  # noqa: ASYNC110 - asyncpg has no event for it
            await asyncio.sleep(0)
        await work

    assert await count(database) == 1


@on_postgresql
@pytest.mark.parametrize("lose", [cut, say_goodbye])
async def test_one_that_dies_between_two_statements_is_an_outage(
    database: Database, owner: UUID, lose: Callable[[Any], None]
) -> None:
    await count(database)
    (connection,) = database._connections._idle

    def script() -> Script[None]:
        yield ADD_CHAT(**chat_row(owner))
        lose(connection)
        yield ADD_CHAT(**chat_row(owner))

    with pytest.raises(UnavailableError):
        await database.transact(script())

    assert await count(database) == 0


@on_postgresql
async def test_a_connection_lost_in_a_transaction_is_an_outage(
    database: Database, owner: UUID
) -> None:
    own = Statement(
        select(func.pg_terminate_backend(func.pg_backend_pid()).label("gone"))
    )

    def script() -> Script[None]:
        yield ADD_CHAT(**chat_row(owner))
        yield own()

    with pytest.raises(UnavailableError) as caught:
        await database.transact(script())
    assert caught.value.code == "database_unavailable"
    assert await count(database) == 0


@on_sqlite
async def test_a_locked_sqlite_is_an_outage(
    settings_with: SettingsFactory, database: Database, owner: UUID
) -> None:
    row = chat_row(owner)
    hasty = Database(settings_with(DB_STATEMENT_TIMEOUT="0.05"))

    def script() -> Script[None]:
        yield ADD_CHAT(**row)

    async with hasty.unit_of_work() as session:
        session.add(Chat(user_id=owner, model="guide/manual"))
        await session.flush()
        with pytest.raises(UnavailableError):
            await hasty.run(ADD_CHAT(**row))
        with pytest.raises(UnavailableError):
            await hasty.transact(script())
        assert await count(hasty) == 0

    await hasty.transact(script())
    assert await count(hasty) == 2
    await hasty.close()
