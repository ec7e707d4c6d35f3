"""The end of the embedded worker, while the database makes it wait."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from app import tasks
from app.core.config import Settings
from app.services.runtime import Runtime
from app.tasks.worker import Worker
from tests.conftest import SettingsFactory

_ = tasks  # importing it registers them


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_process_ends_though_its_worker_waits_for_the_write_lock(
    settings_with: SettingsFactory, tmp_path: Path
) -> None:
    """A statement of aiosqlite's that is cancelled twice never returns."""
    process = threading.Thread(
        target=lambda: asyncio.run(_open_and_close(settings_with(), tmp_path)),
        daemon=True,  # if it hangs, it must not keep the tests from ending
    )

    process.start()
    process.join(timeout=20)

    assert not process.is_alive()


async def _open_and_close(settings: Settings, folder: Path) -> None:
    runtime = Runtime.build(settings)
    await runtime.open()
    worker = Worker(runtime)
    with closing(_locked(folder / "workroom.db")) as lock:
        await worker.open(alone=False, first=0)
        while not worker._moments:  # noqa: ASYNC110 - nothing tells when it has begun
            await asyncio.sleep(0.01)
        threading.Timer(0.3, lock.rollback).start()
        await worker.close(0.1)
        await runtime.close()


def _locked(path: Path) -> sqlite3.Connection:
    lock = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    lock.execute("BEGIN IMMEDIATE")
    return lock
