"""What was said becomes findable half a second later, many messages at a time.

An index of words is written in pieces: for each message by itself that is half of what
SQLite does for a turn, for many together it is little. What waits here is in the
database already, and is found there again where this process dies.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError

from app.core.database import Database
from app.core.exceptions import AppError
from app.core.statements import Script
from app.services.chat import search

_EVERY_SECONDS = 0.5
_CLOSE_SECONDS = 5
_BATCH = 200
_LOOKED_AT = 1000
"""How many of the newest messages are looked at for what lost processes left."""

_log = structlog.get_logger()

Said = tuple[UUID, UUID, str]
"""A text with its chat and its message."""


class SearchIndex:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[Said] = []
        self._some = asyncio.Event()
        self._lock = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        for said in await search.unindexed(self._database, _LOOKED_AT):
            self.add(*said)
        self._writer = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Store what waits; what cannot be is left to the next process."""
        if self._writer is None:
            return
        self._writer.cancel()
        with suppress(asyncio.CancelledError):
            await self._writer
        with suppress(AppError, TimeoutError):
            await asyncio.wait_for(self.settle(), _CLOSE_SECONDS)

    def add(self, chat_id: UUID, message_id: UUID, text: str) -> None:
        """Have a message that is stored found, unless its chat is temporary."""
        self._waiting.append((chat_id, message_id, text))
        self._some.set()

    async def settle(self) -> None:
        """Store what waits: before a search, which so finds what was just said.

        Raises UnavailableError.
        """
        async with self._lock:
            while batch := self._waiting[:_BATCH]:
                await self._store(batch)
                del self._waiting[: len(batch)]

    async def _write(self) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(_EVERY_SECONDS)
            self._some.clear()
            try:
                await self.settle()
            except AppError as error:
                self._some.set()
                _log.warning("messages not indexed yet", code=error.code)

    async def _store(self, batch: Sequence[Said]) -> None:
        """One that the database refuses costs no other."""
        try:
            await self._database.transact(_storing(batch))
        except DBAPIError as error:
            if len(batch) > 1:
                for said in batch:
                    await self._store([said])
                return
            # Its kind alone: what the database says may hold what was written.
            _log.error("message not indexed", error=type(error).__name__)


def _storing(batch: Sequence[Said]) -> Script[None]:
    yield search.entries(batch)
