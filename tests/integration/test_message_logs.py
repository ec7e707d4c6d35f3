"""Message logs: stored in batches, lost never but by a kill."""

import asyncio
import gc
import json
import os
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, func, insert, select, update

from app.core import database as core_database
from app.core.config import ROOT, LiveSettings
from app.core.crypto import Crypto
from app.core.database import Database, utcnow
from app.core.exceptions import UnavailableError
from app.models import MessageLog, User, first_id
from app.services.message_log import retention, writer
from app.services.message_log.entry import Entry
from app.services.message_log.writer import MessageLogs
from tests.conftest import SettingsFactory

ASKED = {"role": "user", "content": [{"type": "text", "text": "a private question"}]}


@pytest.fixture
async def user(database: Database) -> UUID:
    return await add_user(database, "ada")


async def add_user(database: Database, name: str, **facts: Any) -> UUID:
    user_id = uuid4()
    values = {"id": user_id, "email": f"{name}@example.com", "username": name}
    async with database.unit_of_work() as session:
        await session.execute(insert(User), values | {"password_hash": "-"} | facts)
    return user_id


def entry(user_id: UUID, **facts: Any) -> Entry:
    known: dict[str, Any] = {
        "user_id": user_id,
        "kind": "chat",
        "model": "guide/manual",
        "status": "complete",
        "messages": [ASKED],
        "input_tokens": 3,
        "output_tokens": 5,
        "credits": 7,
        "latency_ms": 11,
    }
    return Entry(**(known | facts))


class Workshop:
    """Makes writers, and looks at what they stored."""

    def __init__(self, database: Database, settings_with: SettingsFactory) -> None:
        self.database = database
        self._settings_with = settings_with

    @asynccontextmanager
    async def writer(self, **variables: str) -> AsyncIterator[MessageLogs]:
        logs = self.make(**variables)
        await logs.open()
        yield logs
        await logs.close()

    def make(self, **variables: str) -> MessageLogs:
        settings = self._settings_with(**variables)
        crypto = Crypto(settings.security)
        return MessageLogs(
            LiveSettings(settings), database=self.database, crypto=crypto
        )

    async def rows(self) -> list[MessageLog]:
        async with self.database.unit_of_work(read_only=True) as session:
            found = await session.scalars(select(MessageLog).order_by(MessageLog.id))
            return list(found)

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(20):
            while await self.count() != count:  # noqa: ASYNC110 - a database calls nobody
                await asyncio.sleep(0.01)

    async def count(self) -> int:
        async with self.database.unit_of_work(read_only=True) as session:
            statement = select(func.count()).select_from(MessageLog)
            return await session.scalar(statement) or 0

    def text(self, row: MessageLog) -> Any:
        crypto = Crypto(self._settings_with().security)
        assert row.messages is not None
        place = f"message_logs.messages:{row.id}"
        return json.loads(crypto.open(row.messages, place=place))


@pytest.fixture
def workshop(database: Database, settings_with: SettingsFactory) -> Workshop:
    return Workshop(database, settings_with)


async def test_a_row_tells_who_what_how_much_and_how_long(
    workshop: Workshop, user: UUID
) -> None:
    """TRUST D1: the text is sealed, and bound to its row."""
    async with workshop.writer() as logs:
        await logs.write(entry(user))

    (row,) = await workshop.rows()
    assert (row.user_id, row.username) == (user, "ada")
    assert (row.kind, row.model, row.status) == ("chat", "guide/manual", "complete")
    assert (row.input_tokens, row.output_tokens) == (3, 5)
    assert (row.credits, row.latency_ms) == (7, 11)
    assert "private" not in str(row.messages)
    assert workshop.text(row) == [ASKED]


async def test_who_has_no_name_is_named_by_address(
    workshop: Workshop, database: Database
) -> None:
    user = await add_user(database, "bob", username=None)
    async with workshop.writer() as logs:
        await logs.write(entry(user))

    assert [r.username for r in await workshop.rows()] == ["bob@example.com"]


async def test_text_can_be_switched_off_for_the_installation(
    workshop: Workshop, user: UUID
) -> None:
    async with workshop.writer(MESSAGE_LOG_TEXT="false") as logs:
        await logs.write(entry(user))

    (row,) = await workshop.rows()
    assert (row.messages, row.output_tokens) == (None, 5)


async def test_text_can_be_switched_off_for_a_user(
    workshop: Workshop, database: Database, user: UUID
) -> None:
    other = await add_user(database, "bob")
    async with database.unit_of_work() as session:
        await session.execute(
            update(User).where(User.id == user).values(log_messages=False)
        )
    async with workshop.writer() as logs:
        await logs.write(entry(user))
        await logs.write(entry(other))

    rows = await workshop.rows()
    assert [row.messages is None for row in rows] == [True, False]


class Later:
    """Messages that are given when they are asked for; by whom, `threads` tells."""

    def __init__(self, *messages: Any) -> None:
        self.messages = messages
        self.threads: list[int] = []

    def __call__(self) -> Any:
        self.threads.append(threading.get_ident())
        return self.messages


async def test_long_text_that_is_given_later_is_made_in_a_thread(
    workshop: Workshop, user: UUID
) -> None:
    """So that a call never waits for its own log."""
    later, short = Later(ASKED), Later(ASKED)
    async with workshop.writer() as logs:
        await logs.write(entry(user, messages=later, size=100_000))
        await logs.write(entry(user, messages=short, size=100))
        assert (later.threads, short.threads) == ([], [threading.get_ident()])

    rows = await workshop.rows()
    assert [workshop.text(row) for row in rows] == [[ASKED], [ASKED]]
    assert len(later.threads) == len(short.threads) == 1
    assert later.threads[0] != threading.get_ident()


async def test_text_is_let_go_where_the_installation_keeps_none(
    workshop: Workshop, user: UUID
) -> None:
    off = Later(ASKED)
    held = weakref.ref(off)
    logs = workshop.make(MESSAGE_LOG_TEXT="false")
    await logs.write(entry(user, messages=off, size=10**9))
    del off
    gc.collect()
    released = held() is None
    await logs.open()
    await logs.close()

    assert released
    assert [row.messages for row in await workshop.rows()] == [None]


async def test_text_that_cannot_be_made_costs_no_entry(
    workshop: Workshop, user: UUID
) -> None:
    def broken() -> Any:
        raise KeyError("content")

    async with workshop.writer() as logs:
        await logs.write(entry(user, messages=broken, size=100, credits=1))
        await logs.write(entry(user, credits=2))

    rows = await workshop.rows()
    assert [(r.credits, r.messages is None) for r in rows] == [(1, True), (2, False)]


async def test_what_waits_is_stored_after_the_interval(
    workshop: Workshop, user: UUID
) -> None:
    """TRUST F5: a kill loses at most this interval."""
    async with workshop.writer(MESSAGE_LOG_FLUSH_SECONDS="0.01") as logs:
        await logs.write(entry(user))
        await workshop.reach(1)
        await logs.write(entry(user))
        await workshop.reach(2)


async def test_enough_are_stored_at_once(
    workshop: Workshop, user: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_BATCH", 10)
    async with workshop.writer(MESSAGE_LOG_FLUSH_SECONDS="3600") as logs:
        for _ in range(10):
            await logs.write(entry(user))
        await workshop.reach(10)


async def test_closing_stores_all_that_waits(workshop: Workshop, user: UUID) -> None:
    """TRUST F5: no row lost on SIGTERM, which ends in this."""
    async with workshop.writer(MESSAGE_LOG_FLUSH_SECONDS="3600") as logs:
        for _ in range(1201):
            await logs.write(entry(user))

    assert await workshop.count() == 1201


async def test_two_writers_neither_double_nor_hinder_each_other(
    workshop: Workshop, user: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRUST F5."""
    monkeypatch.setattr(writer, "_BATCH", 7)
    async with workshop.writer() as one, workshop.writer() as other:
        for number in range(200):
            await (one if number % 2 else other).write(entry(user, credits=number))

    assert sorted(row.credits for row in await workshop.rows()) == list(range(200))


async def test_a_batch_that_is_stored_again_is_stored_once(
    workshop: Workshop, user: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRUST F5: the answer to a commit may be lost, and not the commit."""
    monkeypatch.setattr(writer, "_RETRY_SECONDS", (0.0, 0.0))
    logs = workshop.make()
    store, failures = logs._store, 2

    async def store_and_fail(batch: Any) -> None:
        nonlocal failures
        await store(batch)
        if failures:
            failures -= 1
            raise UnavailableError("The connection broke.")

    monkeypatch.setattr(logs, "_store", store_and_fail)
    await logs.open()
    for _ in range(5):
        await logs.write(entry(user))
    await logs.close()

    assert (failures, await workshop.count()) == (0, 5)


@pytest.mark.parametrize("later", [False, True])
async def test_while_the_database_is_away_writers_wait_and_nothing_is_lost(
    workshop: Workshop, user: UUID, monkeypatch: pytest.MonkeyPatch, *, later: bool
) -> None:
    """TRUST F5, F6: memory stays bounded, since calls end no faster than their logs."""
    monkeypatch.setattr(writer, "_RETRY_SECONDS", (0.01, 0.01))
    logs = workshop.make(MESSAGE_LOG_BUFFER_BYTES=str(2**20))
    store = logs._store
    back = asyncio.Event()

    async def store_if_there(batch: Any) -> None:
        if not back.is_set():
            raise UnavailableError("The database is away.")
        await store(batch)

    monkeypatch.setattr(logs, "_store", store_if_there)
    await logs.open()
    large = {"role": "assistant", "content": "x" * 100_000}
    facts: dict[str, Any] = {"messages": [large]}
    if later:  # its size is what was told of it
        facts = {"messages": Later(large), "size": 100_000}
    calls = [asyncio.create_task(logs.write(entry(user, **facts))) for _ in range(15)]
    await asyncio.wait(calls[:10])
    assert all(call.done() for call in calls[:10])
    assert not any(call.done() for call in calls[10:])

    back.set()
    async with asyncio.timeout(20):
        await asyncio.gather(*calls)
    await logs.close()
    assert await workshop.count() == 15


async def test_who_is_cancelled_while_waiting_loses_no_entry(
    workshop: Workshop, user: UUID
) -> None:
    logs = workshop.make(MESSAGE_LOG_BUFFER_BYTES=str(2**20))
    large = {"role": "assistant", "content": "x" * 200_000}
    for _ in range(5):
        await logs.write(entry(user, messages=[large]))
    call = asyncio.create_task(logs.write(entry(user, messages=[large])))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()

    await logs.open()
    await logs.close()
    assert await workshop.count() == 6


async def test_a_row_that_the_database_refuses_costs_no_other(
    workshop: Workshop, user: UUID
) -> None:
    async with workshop.writer() as logs:
        for number in range(20):
            await logs.write(entry(user, credits=number if number != 13 else 2**70))

    stored = [row.credits for row in await workshop.rows()]
    assert stored == [n for n in range(20) if n != 13]


async def test_nothing_is_kept_of_who_was_erased_meanwhile(
    workshop: Workshop, user: UUID
) -> None:
    """TRUST D3."""
    async with workshop.writer() as logs:
        await logs.write(entry(uuid4()))
        await logs.write(entry(user))

    assert [row.user_id for row in await workshop.rows()] == [user]


async def test_an_erasure_takes_the_logs_along(
    workshop: Workshop, database: Database, user: UUID
) -> None:
    """TRUST D3."""
    async with workshop.writer() as logs:
        await logs.write(entry(user))
    async with database.unit_of_work() as session:
        await session.delete(await session.get_one(User, user))

    assert await workshop.count() == 0


class TestRetention:
    async def test_deletes_what_is_old_in_chunks(
        self,
        workshop: Workshop,
        database: Database,
        user: UUID,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(core_database, "_CHUNK", 10)
        monkeypatch.setattr(core_database, "_PAUSE", 0)
        old = utcnow() - timedelta(days=91)
        await self.fill(database, user, 25, old)
        await self.fill(database, user, 5, utcnow())
        commits: list[Any] = []
        engine = database.engine.sync_engine
        event.listen(engine, "commit", commits.append)

        deleted = await retention.purge(database, utcnow() - timedelta(days=90))

        assert (deleted, len(commits), await workshop.count()) == (25, 3, 5)

    async def fill(
        self, database: Database, user: UUID, count: int, moment: Any
    ) -> None:
        first = first_id(moment).int
        rows = [
            {
                "id": UUID(int=first + number),
                "created_at": moment,
                "user_id": user,
                "username": "ada",
                "kind": "chat",
                "model": "guide/manual",
                "input_tokens": 0,
                "output_tokens": 0,
                "credits": 0,
                "latency_ms": 0,
                "status": "complete",
            }
            for number in range(count)
        ]
        async with database.unit_of_work() as session:
            await session.execute(insert(MessageLog), rows)


async def test_a_server_that_ends_loses_none(
    serve: Any, workshop: Workshop, user: UUID
) -> None:
    """TRUST F5: SIGTERM leads to this end of the server."""
    async with serve(MESSAGE_LOG_FLUSH_SECONDS="3600") as server:
        for _ in range(20):
            await server.runtime.message_logs.write(entry(user))
        assert await workshop.count() == 0

    assert await workshop.count() == 20


WRITES_FOREVER = """
import asyncio, sys, time
from uuid import UUID
from app.core.config import load_settings
from app.services.message_log.entry import Entry
from app.services.runtime import Runtime

async def main():
    logs = Runtime.build(load_settings()).message_logs
    await logs.open()
    number = 0
    while True:
        entry = Entry(UUID(sys.argv[1]), "chat", "m", "complete", credits=number)
        await logs.write(entry)
        print(number, time.monotonic(), flush=True)
        number += 1
        await asyncio.sleep(0.005)

asyncio.run(main())
"""
PROMISED = 2.0
"""Seconds of entries that a kill may cost here: the interval, and a busy machine."""


async def test_a_kill_loses_what_came_after_the_last_interval_and_nothing_else(
    workshop: Workshop,
    user: UUID,
    tmp_path: Path,
    database_variables: dict[str, str],
) -> None:
    """TRUST F5."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITES_FOREVER, str(user)),
        cwd=tmp_path,
        env={
            **os.environ,
            **database_variables,
            "PYTHONPATH": str(ROOT),
            "SECRET_KEY": "a secret key that is only for tests",
            "DATA_DIR": str(tmp_path),
            "MESSAGE_LOG_FLUSH_SECONDS": "0.2",
        },
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    written: list[float] = []
    while not written or written[-1] - written[0] < PROMISED + 1:
        written.append(float((await process.stdout.readline()).split()[1]))
    process.kill()
    killed = time.monotonic()
    await process.wait()

    stored = [row.credits for row in await workshop.rows()]
    assert sorted(stored) == list(range(len(stored)))
    assert len(stored) >= sum(1 for at in written if at < killed - PROMISED) > 0
