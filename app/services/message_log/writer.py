"""Stores entries in batches, off the path of the calls they tell of (TRUST F5).

An entry waits in memory until there are enough of them or the first has waited long
enough; text that is given later is made in a thread. Where the database does not keep
up, whoever writes waits with it, so memory stays bounded. Ids are made here, and what
is there already is left alone: a batch whose commit may or may not have happened is
simply stored again.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, cast

import structlog
from prometheus_client import Counter
from sqlalchemy import (
    ColumnElement,
    UpdateBase,
    bindparam,
    case,
    func,
    null,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from app.core.config import LiveSettings
from app.core.crypto import Crypto
from app.core.database import Database
from app.core.exceptions import AppError
from app.core.statements import Script, Statement
from app.models import MessageLog, User
from app.services.message_log.entry import Entry, Waiting

STORED = Counter("workroom_message_logs", "Message logs that were stored")
LOST = Counter("workroom_message_logs_lost", "Message logs that could not be stored")

_BATCH = 500  # rows
_BATCH_BYTES = 4 * 2**20
_RETRY_SECONDS = (0.1, 5.0)  # the first wait, and the longest
_CLOSE_SECONDS = 10.0
_log = structlog.get_logger()


class MessageLogs:
    def __init__(
        self, live: LiveSettings, *, database: Database, crypto: Crypto
    ) -> None:
        self._live = live
        self._settings = live.started.message_logs
        self._database = database
        self._crypto = crypto
        self._waiting: deque[Waiting] = deque()
        self._bytes = 0
        self._some, self._enough = asyncio.Event(), asyncio.Event()
        self._room = asyncio.Event()
        self._closing = False
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._writer = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Store what waits; give up where the database does not take it in time."""
        self._closing = True
        for event in (self._some, self._enough, self._room):
            event.set()
        if self._writer is None:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._writer, _CLOSE_SECONDS)
        if self._waiting:
            LOST.inc(len(self._waiting))
            _log.error("message logs lost", count=len(self._waiting))

    async def write(self, entry: Entry) -> None:
        """Have it stored; waits only where too much waits already.

        The entry is taken before any waiting: whoever is cancelled there loses none.
        """
        keeps_text = self._live.current.message_logs.text
        waiting = Waiting(entry, keeps_text=keeps_text)
        self._waiting.append(waiting)
        self._bytes += waiting.size
        self._some.set()
        if len(self._waiting) >= _BATCH or self._bytes >= _BATCH_BYTES:
            self._enough.set()
        while self._bytes > self._settings.buffer_bytes and not self._closing:
            self._room.clear()
            await self._room.wait()

    async def _write(self) -> None:
        while self._waiting or not self._closing:
            await self._some.wait()
            if not self._closing:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.flush_seconds):
                        await self._enough.wait()
            self._some.clear()
            self._enough.clear()
            await self._flush()

    async def _flush(self) -> None:
        """Store all that waits, however long the database is away."""
        delay, longest = _RETRY_SECONDS
        while self._waiting:
            batch = self._next_batch()
            try:
                await self._store(batch)
            except AppError as error:
                _log.warning("message logs wait", code=error.code, rows=len(batch))
                await asyncio.sleep(delay)
                delay = min(2 * delay, longest)
                continue
            delay = _RETRY_SECONDS[0]
            for done in batch:
                self._waiting.popleft()
                self._bytes -= done.size
            self._room.set()

    def _next_batch(self) -> list[Waiting]:
        batch: list[Waiting] = []
        size = 0
        for waiting in islice(self._waiting, _BATCH):
            size += waiting.size
            if batch and size > _BATCH_BYTES:
                break
            batch.append(waiting)
        return batch

    async def _store(self, batch: Sequence[Waiting]) -> None:
        """One that the database refuses, a NUL in a name say, costs no other.

        Raises UnavailableError where the database is away.
        """
        try:
            await self._insert(batch)
        except AppError:
            raise
        except (SQLAlchemyError, ValueError, OverflowError) as error:
            if len(batch) == 1:
                LOST.inc()
                # Its kind alone: what the database says may hold what was written.
                _log.error("message log refused", error=type(error).__name__)
                return
            half = len(batch) // 2
            await self._store(batch[:half])
            await self._store(batch[half:])
        else:
            STORED.inc(len(batch))

    async def _insert(self, batch: Sequence[Waiting]) -> None:
        # Sealing takes its time: meanwhile the loop goes on with others' work.
        rows = await asyncio.to_thread(lambda: [self._row(w) for w in batch])
        await self._database.transact(_storing(rows))

    def _row(self, waiting: Waiting) -> Mapping[str, Any]:
        text, sealed = waiting.text(), None
        if text is not None:
            place = f"message_logs.messages:{waiting.row['id']}"
            sealed = self._crypto.seal(text.decode(), place=place)
        return {**waiting.row, "messages": sealed}


def _storing(rows: list[Mapping[str, Any]]) -> Script[None]:
    yield _STORE.each(rows)


def _store(insert: Any) -> UpdateBase:
    """What stores an entry, with the name that its user has now.

    Nothing of who was erased, and no text of who does not want it to be kept.
    """
    given: dict[str, ColumnElement[Any]] = {
        column.name: bindparam(column.name, type_=column.type)
        for column in MessageLog.__table__.columns
    }
    given["username"] = func.coalesce(User.username, User.email)
    given["messages"] = case((User.log_messages, given["messages"]), else_=null())
    person = select(*given.values()).where(User.id == given["user_id"])
    stored = insert(MessageLog).from_select(list(given), person)
    return cast("UpdateBase", stored.on_conflict_do_nothing())


_STORE = Statement(_store(sqlite.insert), postgresql=_store(postgresql.insert))
