"""asyncpg's connection as `Database.run` and `Database.transact` use it.

asyncpg itself prepares each statement once for a connection, and keeps it.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import asyncpg
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from app.core.exceptions import AppError
from app.core.statements import (
    Compiled,
    LostError,
    Result,
    Script,
    Statement,
    Values,
    driven,
)

T = TypeVar("T")

_ERRORS: dict[type[Exception], type[DBAPIError]] = {
    asyncpg.IntegrityConstraintViolationError: IntegrityError,
    asyncpg.PostgresError: DBAPIError,
    asyncpg.InterfaceError: InterfaceError,
    asyncpg.InternalClientError: InterfaceError,
    OSError: OperationalError,
}
"""What SQLAlchemy calls the driver's errors; the first that fits."""

_CLOSING_SECONDS = 2
_LOST = ("08", "57P")
"""SQLSTATEs of a connection that ends; the driver's own errors have none."""


class Connection:
    """Where it is in doubt what became of a statement, the connection is given up."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver

    @property
    def lost(self) -> bool:
        return bool(self._driver.is_closed())

    async def run(self, compiled: Compiled, values: Mapping[str, Any]) -> Result:
        try:
            return await self._execute(compiled, values)
        except DBAPIError as error:
            # What had no answer in its time would not have one the second time.
            again = compiled.is_select and not isinstance(error.orig, TimeoutError)
            if error.connection_invalidated and again:
                raise LostError(error.statement, None, error) from error
            raise
        except asyncio.CancelledError:
            await self._call_off()
            raise

    async def transact(
        self, script: Script[T], compiled: Callable[[Statement], Compiled]
    ) -> T:
        try:
            await self._begin()
            try:
                result = await driven(
                    script, lambda s, v: self._execute(compiled(s), v)
                )
            except AppError as error:
                if error.keeps_changes:
                    await self._control("COMMIT")
                raise
            await self._control("COMMIT")
        except asyncio.CancelledError:
            await self._call_off()
            raise
        finally:
            await self._roll_back()
        return result

    async def close(self) -> None:
        with suppress(*_ERRORS):  # then it is cut off
            await self._driver.close(timeout=_CLOSING_SECONDS)

    async def _call_off(self) -> None:
        """Give it up, and have the server end what it does: it would hold its locks."""
        await asyncio.shield(self.close())

    def abandon(self) -> None:
        self._driver.terminate()

    async def _begin(self) -> None:
        try:
            await self._control("BEGIN")
        except DBAPIError as error:
            if error.connection_invalidated:
                raise LostError(error.statement, None, error) from error
            raise

    async def _execute(self, compiled: Compiled, values: Values) -> Result:
        try:
            if isinstance(values, list):
                rows = map(compiled.arguments, values)
                await self._driver.executemany(compiled.sql, rows)
                return Result([], -1)
            arguments = compiled.arguments(values)
            if compiled.gives_rows:
                found = await self._driver.fetch(compiled.sql, *arguments)
                return Result(compiled.rows(found), len(found))
            status = await self._driver.execute(compiled.sql, *arguments)
        except tuple(_ERRORS) as error:
            raise self._translated(error, compiled.sql) from error
        return Result([], int(status.rpartition(" ")[2]))

    async def _control(self, sql: str) -> None:
        try:
            status = await self._driver.execute(sql)
        except tuple(_ERRORS) as error:
            raise self._translated(error, sql) from error
        assert status == sql, "a script has gone on after an error of the database"

    async def _roll_back(self) -> None:
        if self.lost or not self._driver.is_in_transaction():
            return
        try:
            await self._driver.execute("ROLLBACK")
        except tuple(_ERRORS):
            self.abandon()
        except asyncio.CancelledError:
            await self._call_off()
            raise

    def _translated(self, error: Exception, sql: str) -> DBAPIError:
        if isinstance(error, asyncpg.PostgresError):
            error.detail = None  # it quotes the row
        if str(getattr(error, "sqlstate", None) or _LOST[0]).startswith(_LOST):
            self.abandon()  # the driver may take a while to notice
        kind = next(k for theirs, k in _ERRORS.items() if isinstance(error, theirs))
        return kind(
            sql, None, error, hide_parameters=True, connection_invalidated=self.lost
        )
