"""Statements that are compiled once, for the paths where every microsecond counts.

SQLAlchemy makes SQL of a construct, looks up what it made before, wraps the driver's
connection, its cursor and its rows, and does so anew for each statement: many times
what the database itself needs for a row. A `Statement` keeps its SQL and the way its
values go in and come out; `Database.run` and `Database.transact` hand both to the
driver.
"""

from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from sqlalchemy import Dialect, Select, UpdateBase
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

T = TypeVar("T")


Construct: TypeAlias = Select[*tuple[Any, ...]] | UpdateBase


class Statement:
    """A Core construct that is compiled once for a database.

    What changes from call to call are its `bindparam`s. All of them are given at each
    call: defaults that Python computes (of a new id, of `updated_at`) are not applied.
    """

    def __init__(
        self, construct: Construct, *, postgresql: Construct | None = None
    ) -> None:
        """`postgresql` is for that database, where it has another way to say it."""
        self._construct = construct
        self._postgresql = construct if postgresql is None else postgresql
        self.reads = isinstance(construct, Select)

    def construct_for(self, dialect: str) -> Construct:
        return self._postgresql if dialect == "postgresql" else self._construct

    def __call__(self, **values: Any) -> "Bound":
        return Bound(self, values)

    def each(self, rows: list[Mapping[str, Any]]) -> "Many":
        return Many(self, rows)


class Bound(NamedTuple):
    """A statement with its values."""

    statement: Statement
    values: Mapping[str, Any]


class Many(NamedTuple):
    """A statement for many rows in one go; it gives none, and no `rowcount`."""

    statement: Statement
    values: list[Mapping[str, Any]]


Values: TypeAlias = Mapping[str, Any] | list[Mapping[str, Any]]


class Result(NamedTuple):
    rows: list[dict[str, Any]]
    """By the names of the statement's columns; empty where it gives none."""

    rowcount: int
    """How many rows there are, or were changed; -1 where nobody says it."""


Script: TypeAlias = Generator[Bound | Many, Result, T]
"""What is done in one transaction: it yields statements and is sent their results.

Whatever it raises rolls the transaction back, and an error of the database is raised
where the statement was yielded. On SQLite it runs in the connection's thread, so it
touches nothing but its own values.
"""


async def play(session: AsyncSession, script: Script[T]) -> T:
    """Run a script as a part of a unit of work."""
    connection = await session.connection()
    dialect = connection.dialect.name

    async def run(statement: Statement, values: Values) -> Result:
        done = await connection.execute(statement.construct_for(dialect), values)
        if not done.returns_rows:
            return Result([], done.rowcount)
        rows = [dict(row) for row in done.mappings()]
        return Result(rows, len(rows))

    return await driven(script, run)


async def driven(
    script: Script[T], run: Callable[[Statement, Values], Awaitable[Result]]
) -> T:
    """Run what a script yields, one after the other, and give what it returns."""
    try:
        statement, values = next(script)
        while True:
            try:
                result = await run(statement, values)
            except DBAPIError as error:
                statement, values = script.throw(error)
            else:
                statement, values = script.send(result)
    except StopIteration as end:
        found: T = end.value
        return found


class Compiled:
    """SQL in a database's own words, and how values go in and come out."""

    def __init__(self, construct: Construct, dialect: Dialect) -> None:
        compiled = construct.compile(dialect=dialect)
        binds = compiled.binds
        self.expects = {name for name, bind in binds.items() if bind.required}
        state = compiled.construct_expanded_state(dict.fromkeys(self.expects))
        self.sql: str = state.statement
        self.is_select = isinstance(construct, Select)
        self._known = {
            name: value
            for name, value in state.parameters.items()
            if name not in self.expects
        }
        processors = {
            name: bind.type.dialect_impl(dialect).bind_processor(dialect)
            for name, bind in binds.items()
        }
        processors.update(state.processors)
        assert state.positiontup is not None, "both drivers count their parameters"
        self._places = [(name, processors.get(name)) for name in state.positiontup]
        columns = construct.exported_columns
        self._names = tuple(str(name) for name in columns.keys())  # noqa: SIM118 - no dict
        self._processors = [
            (place, process)
            for place, column in enumerate(columns)
            if (
                process := column.type.dialect_impl(dialect).result_processor(
                    dialect, None
                )
            )
        ]

    @property
    def gives_rows(self) -> bool:
        return bool(self._names)

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """The values in the order and the form in which the driver takes them."""
        if values.keys() != self.expects:
            raise TypeError(f"expected {self.expects}, not {values.keys()}: {self.sql}")
        if self._known:
            values = {**self._known, **values}
        return [
            process(values[name]) if process else values[name]
            for name, process in self._places
        ]

    def rows(self, found: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
        """Make rows of the driver's."""
        names = self._names
        if self._processors and found:
            columns: list[Iterable[Any]] = list(zip(*found, strict=True))
            for place, process in self._processors:
                columns[place] = map(process, columns[place])
            found = zip(*columns, strict=True)
        return [dict(zip(names, row, strict=True)) for row in found]


class Driver(Protocol):
    """A connection of the driver's own."""

    @property
    def lost(self) -> bool:
        """Whether it is of no more use."""
        ...

    async def run(self, compiled: Compiled, values: Mapping[str, Any]) -> Result:
        """Run one statement by itself."""
        ...

    async def transact(
        self, script: Script[T], compiled: Callable[[Statement], Compiled]
    ) -> T: ...

    async def close(self) -> None: ...

    def abandon(self) -> None:
        """Close it without waiting for anything."""
        ...


class LostError(OperationalError):
    """The connection was gone before anything had been done that cannot be redone."""
