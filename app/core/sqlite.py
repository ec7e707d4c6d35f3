"""aiosqlite with one trip to its thread for a statement, instead of four.

SQLAlchemy makes a cursor, executes, fetches and closes, each a trip of some 80
microseconds of CPU. Here a cursor fetches as it executes, and what needs no database
(closing it, ending a transaction that never began) needs no trip.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Self

import aiosqlite


class Connection(aiosqlite.Connection):
    def cursor(self) -> "Cursor":  # type: ignore[override]  # what SQLAlchemy uses of it
        return Cursor(self)

    async def commit(self) -> None:
        if self.in_transaction:
            await super().commit()

    async def rollback(self) -> None:
        if self.in_transaction:
            await super().rollback()


class Cursor:
    """Holds all rows of its statement: reads are bounded where they are written."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Self:
        return await self._take(_execute, sql, parameters)

    async def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> Self:
        return await self._take(_executemany, sql, rows)

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def fetchmany(self, size: int = 1) -> list[Any]:
        rows, self._rows = self._rows[:size], self._rows[size:]
        return rows

    async def fetchone(self) -> Any:
        return next(iter(await self.fetchmany(1)), None)

    async def close(self) -> None:
        self._rows = []

    async def _take(self, function: Any, sql: str, parameters: Any) -> Self:
        database = self._connection._conn  # noqa: SLF001 - it is the same class, extended
        trip: Any = self._connection._execute  # noqa: SLF001 - the same
        found = await trip(function, database, sql, parameters)
        self.description, self.rowcount, self.lastrowid, self._rows = found
        return self


def _execute(database: sqlite3.Connection, sql: str, parameters: Any) -> Any:
    return _all(database.execute(sql, parameters))


def _executemany(database: sqlite3.Connection, sql: str, rows: Any) -> Any:
    return _all(database.executemany(sql, rows))


def _all(cursor: sqlite3.Cursor) -> Any:
    rows = cursor.fetchall() if cursor.description else []
    facts = (cursor.description, cursor.rowcount, cursor.lastrowid, rows)
    cursor.close()
    return facts


async def connect(path: str) -> Connection:
    """Open the file; no transaction begins but by a BEGIN of ours."""
    connection = Connection(
        lambda: sqlite3.connect(path, isolation_level=None, check_same_thread=False),
        iter_chunk_size=64,
    )
    # A connection that nobody closes must not keep the process alive.
    connection._thread.daemon = True  # noqa: SLF001 - as SQLAlchemy does it, too
    await connection
    return connection
