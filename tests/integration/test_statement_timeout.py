"""Statements that do not come to their end: a lock that is held for ever (TRUST F6).

A database that is silent altogether is in `tests/e2e/test_database_outage.py`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from sqlalchemy import Uuid, bindparam, func, select, text, update

from app.core.database import Database, utcnow
from app.core.exceptions import UnavailableError
from app.core.statements import Script, Statement
from app.models import User
from tests.conftest import SettingsFactory, on_postgresql

RENAME = Statement(
    update(User.__table__)  # type: ignore[arg-type]  # a mapped class's Table
    .where(User.id == bindparam("user", type_=Uuid()))
    .values(full_name=bindparam("name"), updated_at=bindparam("now"))
)
COUNT = Statement(select(func.count().label("users")).select_from(User))
LIMIT = 0.3


@pytest.fixture
async def hasty(
    settings_with: SettingsFactory, database: Database
) -> AsyncIterator[Database]:
    """The same database, for somebody who waits for no statement longer than that."""
    hasty = Database(settings_with(DB_STATEMENT_TIMEOUT=str(LIMIT)))
    yield hasty
    await hasty.close()


@asynccontextmanager
async def held(database: Database, user_id: UUID) -> AsyncIterator[None]:
    """The row is locked (on SQLite all of the database) until the block ends."""
    async with database.unit_of_work() as session:
        await session.execute(
            update(User).where(User.id == user_id).values(full_name="Held")
        )
        yield


async def by_run(database: Database, user_id: UUID) -> None:
    await database.run(RENAME(user=user_id, name="Late", now=utcnow()))


async def by_transaction(database: Database, user_id: UUID) -> None:
    def script() -> Script[None]:
        yield COUNT()
        yield RENAME(user=user_id, name="Late", now=utcnow())

    await database.transact(script())


async def by_session(database: Database, user_id: UUID) -> None:
    async with database.unit_of_work() as session:
        await session.execute(
            update(User).where(User.id == user_id).values(full_name="Late")
        )


Write = Callable[[Database, UUID], Awaitable[None]]
by_every_way = pytest.mark.parametrize("write", [by_run, by_transaction, by_session])


@by_every_way
async def test_who_waits_for_a_lock_is_told_so_in_time(
    database: Database, hasty: Database, owner: UUID, write: Write
) -> None:
    """TRUST F6."""
    async with held(database, owner):
        async with asyncio.timeout(10):
            with pytest.raises(UnavailableError) as refused:
                await write(hasty, owner)
        assert refused.value.code == "database_unavailable"
        (row,) = (await hasty.run(COUNT())).rows  # others are served
        assert row["users"] == 1

    assert await name_of(database, owner) == "Held"
    await write(hasty, owner)
    assert await name_of(database, owner) == "Late"


async def name_of(database: Database, user_id: UUID) -> str | None:
    async with database.unit_of_work(read_only=True) as session:
        return await session.scalar(select(User.full_name).where(User.id == user_id))


@on_postgresql
@by_every_way
async def test_what_was_given_up_waits_no_longer_at_the_database(
    database: Database, hasty: Database, owner: UUID, write: Write
) -> None:
    """TRUST F6: else all that PostgreSQL has of connections would queue up there."""
    async with held(database, owner):
        for _ in range(3):
            with pytest.raises(UnavailableError):
                await write(hasty, owner)
        async with database.unit_of_work(read_only=True) as session:
            waiting = await session.scalar(text(_WAITING))

    assert waiting == 0


_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@on_postgresql
async def test_a_change_of_the_schema_waits_as_long_as_it_takes(
    settings_with: SettingsFactory, database: Database, owner: UUID
) -> None:
    patient = Database(settings_with(DB_STATEMENT_TIMEOUT="0.05"), patient=True)
    async with patient.unit_of_work() as session:
        await session.execute(select(func.pg_sleep(LIMIT)))
    await patient.close()
