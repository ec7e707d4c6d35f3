"""Who writes when, where many of one process want to."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.core.sqlite import BEGIN, Connection, Turn, connect

PATIENCE = 10  # seconds


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[list[Connection]]:
    turn = Turn(PATIENCE)
    path = str(tmp_path / "some.db")
    opened = [await connect(path, PATIENCE, turn) for _ in range(3)]
    yield opened
    for connection in opened:
        await connection.close()


async def begin(connection: Connection) -> None:
    await connection.cursor().execute(BEGIN)


async def test_writers_come_in_the_order_in_which_they_asked(
    three: list[Connection],
) -> None:
    first, second, third = three
    order: list[str] = []

    async def write(name: str, connection: Connection) -> None:
        await begin(connection)
        order.append(name)
        await connection.rollback()

    await begin(first)
    waiting = [
        asyncio.create_task(write("second", second)),
        asyncio.create_task(write("third", third)),
    ]
    await asyncio.sleep(0)  # they stand in the queue now
    order.append("first")
    await first.commit()
    waiting.append(asyncio.create_task(write("again", first)))
    await asyncio.gather(*waiting)

    assert order == ["first", "second", "third", "again"]


async def test_a_connection_that_is_closed_gives_its_turn_back(
    three: list[Connection],
) -> None:
    first, second, _ = three
    await begin(first)
    await first.close()

    async with asyncio.timeout(PATIENCE / 2):
        await begin(second)

    assert second.in_transaction


async def test_who_is_cancelled_while_waiting_takes_no_turn(
    three: list[Connection],
) -> None:
    first, second, third = three
    await begin(first)
    leaving = asyncio.create_task(begin(second))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await first.rollback()

    async with asyncio.timeout(PATIENCE / 2):
        await begin(third)

    assert third.in_transaction


async def test_who_waits_for_too_long_is_told_what_sqlite_tells(
    tmp_path: Path,
) -> None:
    turn = Turn(0.05)
    path = str(tmp_path / "some.db")
    first, second = [await connect(path, 0.05, turn) for _ in range(2)]
    await begin(first)

    with pytest.raises(sqlite3.OperationalError, match="locked"):
        await begin(second)

    await first.rollback()
    await begin(second)
    for connection in (first, second):
        await connection.close()


async def test_a_begin_that_fails_gives_the_turn_back(tmp_path: Path) -> None:
    """Another process holds SQLite's own lock."""
    path = str(tmp_path / "some.db")
    other = await connect(path, PATIENCE, Turn(PATIENCE))
    mine = await connect(path, 0.05, Turn(PATIENCE))
    await begin(other)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        await begin(mine)
    await other.rollback()

    async with asyncio.timeout(PATIENCE / 2):
        await begin(mine)

    for connection in (mine, other):
        await connection.close()
