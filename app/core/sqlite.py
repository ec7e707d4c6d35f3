"""aiosqlite with one trip to its thread for a statement, instead of four.

SQLAlchemy makes a cursor, executes, fetches and closes, each a trip of some 80
microseconds of CPU. Here a cursor fetches as it executes, and what needs no database
(closing it, ending a transaction that never began) needs no trip.

What is brief needs no trip at all: see `AtOnce`. And who waits to write does so in a
queue of the process: see `Turn`.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Self, TypeVar

import aiosqlite
from sqlalchemy.exc import DBAPIError

from app.core.exceptions import AppError
from app.core.statements import Compiled, Result, Script, Statement, Values

T = TypeVar("T")


BEGIN = "BEGIN IMMEDIATE"
"""What begins each transaction that may write; see `Database`."""

PRAGMAS = (
    "journal_mode = WAL",
    # Safe against a killed process, not against a power cut in the last moment.
    "synchronous = NORMAL",
    "foreign_keys = ON",
)
"""Of every connection."""

_SLOW_SECONDS = 0.02
_REST_SECONDS = 10


class Turn:
    """Who of this process may write: one at a time, in the order in which they came.

    Left to SQLite, who waits tries again after 1, 2, 5, 10 ... ms: it comes long after
    the lock was free, and behind those who came later.
    """

    def __init__(self, seconds: float) -> None:
        """`seconds` is how long one waits."""
        self._seconds = seconds
        self._place = asyncio.Semaphore(1)

    async def take(self) -> None:
        """Raises what SQLite does where it took too long."""
        if not self._place.locked():
            await self._place.acquire()  # at once
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self._place.acquire()
        except TimeoutError as error:
            raise sqlite3.OperationalError("database is locked") from error

    def give(self) -> None:
        self._place.release()

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """For what goes around SQLAlchemy, which would make an error its own."""
        try:
            await self.take()
        except sqlite3.Error as error:
            raise _translated(error, BEGIN) from error
        try:
            yield
        finally:
            self.give()


class Connection(aiosqlite.Connection):
    turn: Turn
    _has_turn = False

    async def begin(self) -> None:
        """Begin to write; the turn is given back as the transaction ends."""
        trip: Any = self._execute
        await self.turn.take()
        self._has_turn = True
        begun = False
        try:
            await trip(self._conn.execute, BEGIN)
            begun = True
        finally:
            if not begun:
                self._give_turn()

    def _give_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self.turn.give()

    def stop(self) -> asyncio.Future[Any] | None:
        """End its thread; whatever closes a connection comes here."""
        self._give_turn()
        return super().stop()

    def cursor(self) -> "Cursor":  # type: ignore[override]  # what SQLAlchemy uses of it
        return Cursor(self)

    async def commit(self) -> None:
        if self.in_transaction:
            await super().commit()
        self._give_turn()

    async def rollback(self) -> None:
        if self.in_transaction:
            await super().rollback()
        self._give_turn()

    # As `Database.run` and `Database.transact` use it: one trip, and the connection is
    # as it was afterwards, whatever became of those who wait.

    @property
    def lost(self) -> bool:
        return not self._running

    async def run(self, compiled: Compiled, values: Mapping[str, Any]) -> Result:
        trip: Any = self._execute
        async with nullcontext() if compiled.is_select else self.turn.taken():
            result: Result = await trip(_run, self._conn, compiled, values)
        return result

    async def transact(
        self, script: Script[T], compiled: Callable[[Statement], Compiled]
    ) -> T:
        trip: Any = self._execute
        async with self.turn.taken():
            result: T = await trip(_transact, self._conn, script, compiled)
        return result

    def abandon(self) -> None:
        self.stop()


class NotHereError(Exception):
    """What was to be done at once has to wait: nothing is done."""


class AtOnce:
    """Does what is brief in the event loop's own thread.

    A trip to another thread and back costs more than a statement that finds its pages
    in memory. Where the disk is slow all would wait for it, so it is left alone for a
    while then; and nobody waits here for another process, nor copies the log of changes
    into the database file: the threads' connections do. See docs/adr/0031.
    """

    def __init__(self, path: str, turn: Turn) -> None:
        """Raises NotHereError where there is no database."""
        try:
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
            for pragma in (*PRAGMAS, "wal_autocheckpoint = 0"):
                self._database.execute(f"PRAGMA {pragma}").close()
        except sqlite3.Error as error:
            raise NotHereError from error
        self._turn = turn
        self._rests_until = 0.0

    def run(self, compiled: Compiled, values: Mapping[str, Any]) -> Result:
        """Read. Raises NotHereError."""
        begun = self._begin()
        try:
            return _run(self._database, compiled, values)
        except DBAPIError as error:
            raise _busy(error) or error from error
        finally:
            self._end(begun)

    async def transact(
        self, script: Script[T], compiled: Callable[[Statement], Compiled]
    ) -> T:
        """Raises NotHereError before the script has begun."""
        async with self._turn.taken():
            begun = self._begin()
            try:
                self._take_lock()
                return _begun(self._database, script, compiled)
            finally:
                self._end(begun)

    def _take_lock(self) -> None:
        try:
            _control(self._database, BEGIN)
        except DBAPIError as error:
            raise _busy(error) or error from error

    def _begin(self) -> float:
        now = time.monotonic()
        if now < self._rests_until:
            raise NotHereError
        return now

    def _end(self, begun: float) -> None:
        now = time.monotonic()
        if now - begun > _SLOW_SECONDS:
            self._rests_until = now + _REST_SECONDS

    def close(self) -> None:
        self._database.close()


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
        if sql == BEGIN:
            await self._connection.begin()
            return self
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


def _run(database: sqlite3.Connection, compiled: Compiled, values: Values) -> Result:
    try:
        if isinstance(values, list):
            database.executemany(compiled.sql, map(compiled.arguments, values))
            return Result([], -1)
        cursor = database.execute(compiled.sql, compiled.arguments(values))
        if compiled.gives_rows:
            found = cursor.fetchall()
            return Result(compiled.rows(found), len(found))
        return Result([], cursor.rowcount)
    except sqlite3.Error as error:
        raise _translated(error, compiled.sql) from error


def _transact(
    database: sqlite3.Connection,
    script: Script[T],
    compiled: Callable[[Statement], Compiled],
) -> T:
    _control(database, BEGIN)
    return _begun(database, script, compiled)


def _begun(
    database: sqlite3.Connection,
    script: Script[T],
    compiled: Callable[[Statement], Compiled],
) -> T:
    try:
        try:
            result = _play(database, script, compiled)
        except AppError as error:
            if error.keeps_changes:
                _control(database, "COMMIT")
            raise
        _control(database, "COMMIT")
    finally:
        if database.in_transaction:
            database.execute("ROLLBACK")
    return result


def _play(
    database: sqlite3.Connection,
    script: Script[T],
    compiled: Callable[[Statement], Compiled],
) -> T:
    try:
        statement, values = next(script)
        while True:
            try:
                result = _run(database, compiled(statement), values)
            except DBAPIError as error:
                statement, values = script.throw(error)
            else:
                statement, values = script.send(result)
    except StopIteration as end:
        found: T = end.value
        return found


def _busy(error: DBAPIError) -> NotHereError | None:
    """Where another process has the lock."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    return NotHereError() if code == sqlite3.SQLITE_BUSY else None


def _control(database: sqlite3.Connection, sql: str) -> None:
    try:
        database.execute(sql)
    except sqlite3.Error as error:
        raise _translated(error, sql) from error


def _translated(error: sqlite3.Error, sql: str) -> Exception:
    return DBAPIError.instance(sql, None, error, sqlite3.Error, hide_parameters=True)


async def connect(path: str, lock_seconds: float, turn: Turn) -> Connection:
    """Open the file; no transaction begins but by a BEGIN of ours.

    One that cannot begin for so long, because another process writes, fails. `turn` is
    that of all connections of this one.
    """
    connection = Connection(
        lambda: sqlite3.connect(
            path, timeout=lock_seconds, isolation_level=None, check_same_thread=False
        ),
        iter_chunk_size=64,
    )
    connection.turn = turn
    # A connection that nobody closes must not keep the process alive.
    connection._thread.daemon = True  # noqa: SLF001 - as SQLAlchemy does it, too
    await connection
    return connection
