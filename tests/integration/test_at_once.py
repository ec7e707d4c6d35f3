"""Brief statements on SQLite: done where they are asked for, or by a thread."""

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from app.core import sqlite
from app.core.database import Database
from app.core.exceptions import NotFoundError
from app.core.statements import Script
from tests.conftest import on_sqlite
from tests.integration.test_run_and_transact import ADD_CHAT, COUNT, chat_row


@pytest.fixture
def ran_in(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the threads that statements run in."""
    seen: set[str] = set()
    run = sqlite._run

    def noted(*given: Any) -> Any:
        seen.add(threading.current_thread().name)
        return run(*given)

    monkeypatch.setattr(sqlite, "_run", noted)
    return seen


def adding(owner: UUID, **changes: Any) -> Script[None]:
    yield ADD_CHAT(**chat_row(owner, **changes))


async def count(database: Database) -> int:
    (row,) = (await database.run(COUNT(), brief=True)).rows
    found: int = row["chats"]
    return found


def file_of(database: Database) -> Path:
    return Path(database.engine.url.database or "")


@on_sqlite
async def test_brief_statements_need_no_thread(
    database: Database, owner: UUID, ran_in: set[str]
) -> None:
    await database.transact(adding(owner), brief=True)

    assert await count(database) == 1
    assert ran_in == {threading.current_thread().name}
    ran_in.clear()
    await database.transact(adding(owner))
    assert threading.current_thread().name not in ran_in


@on_sqlite
async def test_what_fails_leaves_nothing_and_no_lock(
    database: Database, owner: UUID
) -> None:
    def failing() -> Script[None]:
        yield from adding(owner)
        raise NotFoundError("There is none.")

    with pytest.raises(NotFoundError):
        await database.transact(failing(), brief=True)
    with pytest.raises(IntegrityError):
        await database.transact(adding(UUID(int=1)), brief=True)

    assert await count(database) == 0
    await database.transact(adding(owner))
    assert await count(database) == 1


@on_sqlite
async def test_who_waits_for_another_process_keeps_nobody_waiting(
    database: Database, owner: UUID, ran_in: set[str]
) -> None:
    other = sqlite3.connect(file_of(database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    waiting = asyncio.create_task(database.transact(adding(owner), brief=True))
    await asyncio.sleep(0)  # it has found the lock taken
    assert await count(database) == 0  # the loop goes on, and reads
    other.execute("COMMIT")
    other.close()
    await waiting

    assert await count(database) == 1
    assert len(ran_in) == 2, "the write went to a thread"


@on_sqlite
async def test_a_slow_disk_is_left_to_the_threads_for_a_while(
    database: Database,
    owner: UUID,
    ran_in: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = threading.current_thread().name
    with monkeypatch.context() as slow:
        slow.setattr(sqlite, "_SLOW_SECONDS", -1.0)
        await database.transact(adding(owner), brief=True)
    assert ran_in == {here}
    ran_in.clear()

    await database.transact(adding(owner), brief=True)
    assert await count(database) == 2
    assert ran_in
    assert here not in ran_in

    at_once = database._at_once
    assert at_once is not None
    at_once._rests_until = 0.0
    await database.transact(adding(owner), brief=True)
    assert here in ran_in


@on_sqlite
async def test_the_log_of_changes_is_copied_by_threads_alone(
    database: Database, owner: UUID
) -> None:
    file = file_of(database)
    log = file.with_name(f"{file.name}-wal")
    before = file.stat().st_size

    while log.stat().st_size < 1200 * 4096:  # SQLite itself would copy after 1000 pages
        await database.transact(adding(owner, system_prompt="x" * 50_000), brief=True)
    assert file.stat().st_size == before

    await database.transact(adding(owner))
    assert file.stat().st_size > before


def test_a_missing_folder_is_left_to_the_threads_to_tell(tmp_path: Path) -> None:
    with pytest.raises(sqlite.NotHereError):
        sqlite.AtOnce(str(tmp_path / "gone" / "workroom.db"), sqlite.Turn(1))
