"""The connections that `Database.run` and `Database.transact` borrow."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.core.statements import Driver, LostError

T = TypeVar("T")


class Connections:
    """At most `size` connections, opened when they are needed.

    The one that came back last goes out first: few are busy, and these stay warm.
    SQLAlchemy's own pool costs more for each use than a short statement.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Driver]], *, size: int, seconds: float
    ) -> None:
        """`seconds` is how long one waits for a connection."""
        self._connect = connect
        self._seconds = seconds
        self._places = asyncio.Semaphore(size)
        self._idle: list[Driver] = []
        self._closed = False

    async def use(self, work: Callable[[Driver], Awaitable[T]]) -> T:
        """Do `work`; where its connection turns out lost, once more on a new one."""
        try:
            return await self._use(work)
        except LostError:
            self._forget_idle()  # they are of the same age
            return await self._use(work)

    async def _use(self, work: Callable[[Driver], Awaitable[T]]) -> T:
        await self._wait()
        connection: Driver | None = None
        try:
            connection = self._warm() or await self._connect()
            return await work(connection)
        finally:
            self._places.release()
            if connection is not None:
                self._keep(connection)

    async def _wait(self) -> None:
        if not self._places.locked():
            await self._places.acquire()  # at once
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self._places.acquire()
        except TimeoutError as error:
            raise PoolTimeoutError("all connections are busy") from error

    def _warm(self) -> Driver | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.lost:
                return connection
        return None

    def _keep(self, connection: Driver) -> None:
        if self._closed:
            connection.abandon()
        elif not connection.lost:
            self._idle.append(connection)

    def _forget_idle(self) -> None:
        while self._idle:
            self._idle.pop().abandon()

    async def close(self) -> None:
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.close() for connection in idle))
