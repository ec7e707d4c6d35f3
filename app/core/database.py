"""The engine, and the one place that opens, commits and rolls back.

`Database.unit_of_work()` is used by requests, turns, jobs and the command line alike;
the busiest paths go without a session, by `Database.run()` and `transact()`. Nothing
else commits. What must only happen once a change is safe (start a turn, wake the job
worker, forget a cached principal) is registered with `after_commit`; what must be the
last to be written, with `before_commit`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import orjson
import sqlalchemy
from sqlalchemy import (
    CursorResult,
    SQLColumnExpression,
    delete,
    event,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase

from app.core import outages, sqlite
from app.core.config import Settings
from app.core.connections import Connections
from app.core.exceptions import AppError
from app.core.statements import Bound, Compiled, Driver, Result, Script, Statement

Session = AsyncSession
"""What a unit of work gives; the API names it so, and imports no SQLAlchemy."""

AfterCommit = Callable[[], None]
BeforeCommit = Callable[[AsyncSession], Awaitable[None]]
T = TypeVar("T")

_CONNECT_SECONDS = 5
_CLOSE_SECONDS = 5
_UNHEARD_SECONDS = 2
"""A statement's end is PostgreSQL's to call, and it undoes what was done: only when it
has not been heard of for so long beyond that, the connection is given up."""

_CHUNK = 1000  # rows
_PAUSE = 0.05  # seconds in which others may write

_ALONE = 0x576F726B726F6F6D
"""The advisory lock of a server that shares its database with no other."""


def utcnow() -> datetime:
    return datetime.now(UTC)


class Database:
    def __init__(self, settings: Settings, *, patient: bool = False) -> None:
        """`patient`: statements take as long as they need, for changes of the schema.

        Else none takes longer than `DB_STATEMENT_TIMEOUT`, so what may meet any number
        of rows is done in chunks.
        """
        url = settings.database_url
        limit = settings.database.statement_timeout
        self.is_sqlite = url.startswith("sqlite")
        options: dict[str, Any] = {
            "pool_size": settings.database.pool_size,
            "max_overflow": settings.database.max_overflow,
            "pool_timeout": settings.database.pool_timeout,
            "poolclass": outages.Pool,
            # A connection that died in the pool is replaced unseen by its next user.
            "pool_pre_ping": not self.is_sqlite,
        }
        if self.is_sqlite:
            path = make_url(url).database or ":memory:"
            turn = sqlite.Turn(limit)
            options["async_creator"] = lambda: sqlite.connect(path, limit, turn)
            self._open_at_once = partial(sqlite.AtOnce, path, turn)
        else:
            options["connect_args"] = _limits(None if patient else limit)
        self.engine = create_async_engine(
            url,
            json_serializer=lambda value: orjson.dumps(value).decode(),
            json_deserializer=orjson.loads,
            # An error's text goes into the log, and what people wrote must not.
            hide_parameters=True,
            **options,
        )
        outages.watch(self.engine.sync_engine)
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
        self._writing = async_sessionmaker(
            self.engine, expire_on_commit=False, info={"settings": settings}
        )
        self._reading = async_sessionmaker(
            self.engine.execution_options(read_only=True), expire_on_commit=False
        )
        seconds = settings.database.pool_timeout
        self._connections = self._writers = Connections(
            self._connect, size=settings.database.pool_size, seconds=seconds
        )
        if self.is_sqlite:
            # One writes at a time anyway: the others wait for it here, where they do
            # not keep readers from a connection, and are woken as it ends.
            self._writers = Connections(self._connect, size=1, seconds=seconds)
        self._at_once: sqlite.AtOnce | None = None
        self._claim: AsyncConnection | None = None
        self._compiled: dict[Statement, Compiled] = {}
        self.watchers: list[Callable[[str], None]] = []
        """Told the SQL of what `run` and `transact` run, for tests that count it."""

    @asynccontextmanager
    async def unit_of_work(
        self, *, read_only: bool = False
    ) -> AsyncIterator[AsyncSession]:
        """Run a block in one transaction; what does not end well is rolled back.

        Raises UnavailableError (503) where the database cannot be reached. A read-only
        one never commits, and on SQLite does not wait for writers.
        """
        sessions = self._reading if read_only else self._writing
        async with sessions() as session:
            try:
                try:
                    yield session
                except AppError as error:
                    if not error.keeps_changes:
                        raise
                    await _commit(session)
                    raise
                if not read_only:
                    await _commit(session)
            except outages.UNREACHABLE as error:
                if not outages.is_outage(error):
                    raise
                raise outages.unavailable() from error

    async def run(self, bound: Bound, *, brief: bool = False) -> Result:
        """Run one statement, in a transaction of its own if it writes.

        As quick as it gets: no session and no objects. Errors are as in a unit of work,
        so an IntegrityError is SQLAlchemy's. `brief`: it reads, and takes a fraction of
        a millisecond, so that SQLite can do it at once.
        """
        statement, values = bound

        async def work(connection: Driver) -> Result:
            return await connection.run(self._compile(statement), values)

        connections = self._connections if statement.reads else self._writers
        try:
            if brief and self.is_sqlite:
                with suppress(sqlite.NotHereError):
                    return self._here().run(self._compile(statement), values)
            return await connections.use(work)
        except outages.UNREACHABLE as error:
            if not outages.is_outage(error):
                raise
            raise outages.unavailable() from error
        finally:
            for watch in self.watchers:
                watch(self._compile(statement).sql)

    async def transact(self, script: Script[T], *, brief: bool = False) -> T:
        """Run a script in one transaction, and give what it returns.

        It is committed where a unit of work would be, and rolled back elsewhere. On
        SQLite all of it is one trip to the connection's thread, or none where it is
        `brief`: some statements by primary keys.
        """
        ran: list[Compiled] = []

        def compiled(statement: Statement) -> Compiled:
            ran.append(self._compile(statement))
            return ran[-1]

        try:
            if brief and self.is_sqlite:
                with suppress(sqlite.NotHereError):
                    return await self._here().transact(script, compiled)
            return await self._writers.use(
                lambda connection: connection.transact(script, compiled)
            )
        except outages.UNREACHABLE as error:
            if not outages.is_outage(error):
                raise
            raise outages.unavailable() from error
        finally:
            for watch in self.watchers:
                for one in ran:
                    watch(one.sql)

    def _here(self) -> sqlite.AtOnce:
        if self._at_once is None:
            self._at_once = self._open_at_once()
        return self._at_once

    def _compile(self, statement: Statement) -> Compiled:
        compiled = self._compiled.get(statement)
        if compiled is None:
            dialect = self.engine.dialect
            compiled = Compiled(statement.construct_for(dialect.name), dialect)
            self._compiled[statement] = compiled
        return compiled

    async def _connect(self) -> Driver:
        """Take a connection out of the engine's pool for good: it is set up as all."""
        try:
            connection = await self.engine.raw_connection()
        except self.engine.dialect.loaded_dbapi.Error as error:
            raise OperationalError(None, None, error, hide_parameters=True) from error
        driver: Any = connection.driver_connection
        connection.detach()
        if self.is_sqlite:
            return driver  # type: ignore[no-any-return]  # it is our own class
        from app.core.postgresql import Connection  # noqa: PLC0415 - asyncpg takes time to load

        return Connection(driver)

    async def delete_in_chunks(
        self, table: type[DeclarativeBase], *which: SQLColumnExpression[bool]
    ) -> int:
        """Delete rows, however many, and give their number.

        No transaction is long, and nobody waits for all of it.
        """
        (key,) = sqlalchemy.inspect(table).primary_key
        some = select(key).where(*which).order_by(key).limit(_CHUNK)
        deleted = 0
        while True:
            async with self.unit_of_work() as session:
                done = await session.execute(
                    delete(table)
                    .where(key.in_(some))
                    .execution_options(synchronize_session=False)
                )
            count = changed_rows(done)
            deleted += count
            if count < _CHUNK:
                return deleted
            await asyncio.sleep(_PAUSE)

    async def claim(self) -> bool:
        """Take the database for this process alone, until it is closed or dies.

        False where another has it. Always True on SQLite, whose folder is locked.
        """
        if self.is_sqlite:
            return True
        connection = await self.engine.connect()
        claimed: bool | None = await connection.scalar(
            text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _ALONE}
        )
        await connection.commit()
        if claimed:
            self._claim = connection  # the lock is the connection's
        else:
            await connection.close()
        return bool(claimed)

    async def ping(self) -> None:
        """Raise UnavailableError where the database does not answer."""
        async with self.unit_of_work(read_only=True) as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """End all connections; one whose other end is silent is left behind."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._writers.close()
                await self._connections.close()
                if self._claim is not None:
                    await self._claim.invalidate()
                    await self._claim.close()
                await self.engine.dispose()
                if self._at_once is not None:
                    self._at_once.close()


async def _commit(session: AsyncSession) -> None:
    steps: list[BeforeCommit] = session.info.pop("before_commit", [])
    if steps:
        await session.flush()
    for step in steps:
        await step(session)
    await session.commit()
    callbacks: list[AfterCommit] = session.info.pop("after_commit", [])
    for callback in callbacks:
        callback()


def after_commit(session: AsyncSession, callback: AfterCommit) -> None:
    """Run `callback` once this unit of work is safely stored, and only then."""
    session.info.setdefault("after_commit", []).append(callback)


def before_commit(session: AsyncSession, step: BeforeCommit) -> None:
    """Run `step` as the last of this unit of work, where it ends well.

    For what everybody's transactions wait on: it is held for the commit alone, and no
    lock is taken after it, so it cannot be part of a deadlock.
    """
    session.info.setdefault("before_commit", []).append(step)


def settings_of(session: AsyncSession) -> Settings:
    """The settings under which a unit of work, not a read-only one, was begun."""
    settings: Settings = session.info["settings"]
    return settings


def changed_rows(result: sqlalchemy.Result[Any]) -> int:
    """How many rows an UPDATE or DELETE met."""
    assert isinstance(result, CursorResult)
    return result.rowcount


async def release(session: AsyncSession) -> None:
    """Give the connection back before slow work that needs none, such as a hash.

    Nothing may have been written yet; the next statement begins a new transaction.
    """
    assert not any((session.new, session.dirty, session.deleted))
    await session.rollback()


def _limits(seconds: float | None) -> dict[str, Any]:
    """What asyncpg is given: the time for a connection, and for a statement."""
    limits: dict[str, Any] = {"timeout": _CONNECT_SECONDS}
    if seconds is not None:
        # What waits for a lock counts, too.
        limits["server_settings"] = {"statement_timeout": f"{seconds * 1000:.0f}"}
        limits["command_timeout"] = seconds + _UNHEARD_SECONDS
    return limits


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in sqlite.PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    # A transaction that reads first and writes later would fail at once if another
    # wrote in between, so writers take the write lock (and wait for it) at the start.
    # Readers take none: each of their statements sees a state of its own.
    if not connection.get_execution_options().get("read_only"):
        connection.exec_driver_sql(sqlite.BEGIN)
