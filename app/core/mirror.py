"""A small table that every process keeps whole in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

import structlog

from app.core.bus import Bus
from app.core.exceptions import AppError

_SECONDS = 10
_SECONDS_UNHEARD = 1
_log = structlog.get_logger()

T = TypeVar("T")


class Mirror(Generic[T]):
    """Reads it at the start, when a process says that it changed, and now and then.

    So what a process knows is what stood there a moment ago, and a second ago where
    others cannot be heard. While the database is away, what was known still counts.
    """

    def __init__(
        self,
        bus: Bus,
        name: str,
        *,
        read: Callable[[], Awaitable[T]],
        take: Callable[[T], None],
    ) -> None:
        self._bus = bus
        self._name = name
        self._channel = f"{name}.changed"
        self._read = read
        self._take = take
        self._stale = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self._bus.listen(self._channel, self._hear)
        self._bus.on_gap(self._stale.set)
        self._take(await self._read())
        self._watcher = asyncio.create_task(self._watch())

    async def close(self) -> None:
        await self._bus.unlisten(self._channel, self._hear)
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher

    def changed(self) -> None:
        """Have all processes read it again; to be said once the change is stored."""
        self._stale.set()
        self._bus.say(self._channel, b"")

    def _hear(self, _message: bytes) -> None:
        self._stale.set()

    async def _watch(self) -> None:
        while True:
            seconds = _SECONDS if self._bus.reliable else _SECONDS_UNHEARD
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stale.wait()
            self._stale.clear()
            try:
                found = await self._read()
            except AppError as error:
                _log.warning("table not read", table=self._name, code=error.code)
                continue
            if not self._stale.is_set():  # else it may be from before the change
                self._take(found)
