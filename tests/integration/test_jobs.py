"""Background work (TRUST F4)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app.core import queue
from app.core.config import Settings
from app.core.database import Database, utcnow
from app.models import Job
from app.services import job as jobs
from app.services.runtime import Runtime
from app.tasks.worker import Worker

LEASE = timedelta(seconds=60)


class Log:
    """What the tasks of these tests did; `on` decides how one goes."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.changed = asyncio.Event()
        self.hold = asyncio.Event()
        self.hold.set()
        self.failures = 0

    async def run(self, _runtime: Any, *, word: str = "scheduled") -> None:
        self.runs.append(word)
        self.changed.set()
        await self.hold.wait()
        if self.failures:
            self.failures -= 1
            raise ValueError("not this time")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(queue, "_tasks", {})
    monkeypatch.setattr(queue, "retry_delay", lambda _attempt: timedelta(0))
    monkeypatch.setattr(jobs, "retry_delay", lambda _attempt: timedelta(0))
    queue.task("test.word")(log.run)
    return log


@pytest.fixture
def runtime(settings_with: Callable[..., Settings], database: Database) -> Runtime:
    assert database  # empties it
    return Runtime.build(settings_with(JOB_POLL_SECONDS="0.05"))


@pytest.fixture
async def closing(runtime: Runtime) -> AsyncIterator[None]:
    yield
    await runtime.close()


@asynccontextmanager
async def working(runtime: Runtime, *, alone: bool = False) -> AsyncIterator[Worker]:
    worker = Worker(runtime)
    await worker.open(alone=alone, first=0)
    try:
        yield worker
    finally:
        await worker.close(0.2)


async def ask(runtime: Runtime, word: str, **options: Any) -> None:
    async with runtime.database.unit_of_work() as session:
        jobs.enqueue(session, "test.word", word=word, **options)


async def states(runtime: Runtime) -> list[str]:
    async with runtime.database.unit_of_work(read_only=True) as session:
        return list(await session.scalars(select(Job.state).order_by(Job.id)))


async def reach(runtime: Runtime, expected: list[str]) -> None:
    async with asyncio.timeout(10):
        while await states(runtime) != expected:  # noqa: ASYNC110 - the database tells
            await asyncio.sleep(0.01)


async def lease_of_the_job(runtime: Runtime) -> Any:
    async with runtime.database.unit_of_work(read_only=True) as session:
        return (await session.scalars(select(Job.lease_expires_at))).one()


pytestmark = pytest.mark.usefixtures("closing")


async def test_a_job_runs_once_its_transaction_is_stored(
    runtime: Runtime, log: Log
) -> None:
    async with working(runtime):
        await ask(runtime, "hello")
        await reach(runtime, ["succeeded"])

    assert log.runs == ["hello"]


async def test_a_job_of_a_transaction_that_fails_never_was(
    runtime: Runtime, log: Log
) -> None:
    async def fail() -> None:
        async with runtime.database.unit_of_work() as session:
            jobs.enqueue(session, "test.word", word="lost")
            await session.flush()
            raise LookupError

    with pytest.raises(LookupError):
        await fail()

    assert await states(runtime) == []


async def test_a_job_that_fails_is_tried_again(runtime: Runtime, log: Log) -> None:
    log.failures = 2
    async with working(runtime):
        await ask(runtime, "hello")
        await reach(runtime, ["succeeded"])

    assert log.runs == ["hello"] * 3


async def test_what_keeps_failing_ends_dead_and_can_be_run_again(
    runtime: Runtime, log: Log
) -> None:
    log.failures = 3
    async with working(runtime):
        await ask(runtime, "hello", max_attempts=3)
        await reach(runtime, ["dead"])
        async with runtime.database.unit_of_work(read_only=True) as session:
            dead = (await session.scalars(select(Job))).one()
        assert dead.error == "ValueError: not this time"

        async with runtime.database.unit_of_work() as session:
            await jobs.rerun(session, dead.id)
        await reach(runtime, ["succeeded"])

    assert len(log.runs) == 4


async def test_a_name_that_no_task_has_is_refused(runtime: Runtime, log: Log) -> None:
    with pytest.raises(KeyError):
        async with runtime.database.unit_of_work() as session:
            jobs.enqueue(session, "test.unknown")


async def test_a_later_job_waits_for_its_time(runtime: Runtime, log: Log) -> None:
    async with working(runtime):
        await ask(runtime, "later", run_at=utcnow() + timedelta(hours=1))
        await ask(runtime, "now")
        await reach(runtime, ["queued", "succeeded"])

    assert log.runs == ["now"]


async def test_the_work_of_a_worker_that_died_is_taken_up_again(
    runtime: Runtime, log: Log
) -> None:
    """F4: by its lease, where others may be alive."""
    await ask(runtime, "hello")
    async with runtime.database.unit_of_work() as session:
        (claimed,) = await jobs.claim(session, owner="dead", lease=LEASE, limit=5)
    async with working(runtime):
        await asyncio.sleep(0.1)
        assert log.runs == []  # the lease still holds

        async with runtime.database.unit_of_work() as session:
            (await session.get_one(Job, claimed.id)).lease_expires_at = utcnow()
        await reach(runtime, ["succeeded"])

    assert log.runs == ["hello"]


async def test_alone_it_need_not_wait_for_the_lease(runtime: Runtime, log: Log) -> None:
    """F4."""
    await ask(runtime, "hello")
    async with runtime.database.unit_of_work() as session:
        await jobs.claim(session, owner="dead", lease=LEASE, limit=5)

    async with working(runtime, alone=True):
        await reach(runtime, ["succeeded"])

    assert log.runs == ["hello"]


async def test_a_job_that_kills_each_worker_ends_dead(
    runtime: Runtime, log: Log
) -> None:
    await ask(runtime, "deadly", max_attempts=2)
    for _ in range(2):
        async with runtime.database.unit_of_work() as session:
            await jobs.claim(session, owner="dead", lease=LEASE, limit=5)
            await jobs.release(session)

    async with working(runtime):
        await reach(runtime, ["dead"])

    assert log.runs == []


async def test_a_lost_claim_cannot_end_the_job(runtime: Runtime, log: Log) -> None:
    await ask(runtime, "hello")
    async with runtime.database.unit_of_work() as session:
        (late,) = await jobs.claim(session, owner="slow", lease=-LEASE, limit=5)
    async with runtime.database.unit_of_work() as session:
        (mine,) = await jobs.claim(session, owner="quick", lease=LEASE, limit=5)
    assert mine.attempts == 2

    async with runtime.database.unit_of_work() as session:
        await jobs.fail(session, late, "too late")

    assert await states(runtime) == ["running"]


async def test_two_workers_never_claim_the_same_job(runtime: Runtime, log: Log) -> None:
    for n in range(10):
        await ask(runtime, str(n))

    async def take(owner: str) -> list[Any]:
        async with runtime.database.unit_of_work() as session:
            found = await jobs.claim(session, owner=owner, lease=LEASE, limit=4)
            return [job.id for job in found]

    taken = await asyncio.gather(*(take(f"worker {n}") for n in range(3)))

    claimed = [job_id for ids in taken for job_id in ids]
    assert len(claimed) == len(set(claimed)) == 10


async def test_who_looks_for_work_waits_for_no_writer(
    runtime: Runtime, log: Log
) -> None:
    """A worker that has nothing to do would queue up for SQLite's one write lock."""
    async with runtime.database.unit_of_work() as session:
        jobs.enqueue(session, "test.word", word="hello")
        await session.flush()

        assert not await jobs.any_due(runtime.database)

    assert await jobs.any_due(runtime.database)


async def test_slow_jobs_of_one_kind_leave_room_for_the_others(
    runtime: Runtime, log: Log
) -> None:
    slow = Log()
    slow.hold.clear()
    queue.task("test.slow", at_most=2)(slow.run)
    async with runtime.database.unit_of_work() as session:
        for n in range(9):
            jobs.enqueue(session, "test.slow", word=str(n))
    await ask(runtime, "quick")

    async with working(runtime):
        await reach(runtime, ["running"] * 2 + ["queued"] * 7 + ["succeeded"])
        assert log.runs == ["quick"]
        slow.hold.set()
        await reach(runtime, ["succeeded"] * 10)

    assert slow.runs == [str(n) for n in range(9)]


async def test_what_has_been_due_for_longest_is_claimed_first_where_it_has_room(
    runtime: Runtime, log: Log
) -> None:
    queue.task("test.slow", at_most=2)(log.run)
    queue.task("test.slower", at_most=1)(log.run)
    names = ["test.slower"] * 4 + ["test.slow"] * 4 + ["test.word"] * 4
    async with runtime.database.unit_of_work() as session:
        for name in names:
            jobs.enqueue(session, name, word=name)

    async def take(limit: int, *running: str) -> list[str]:
        async with runtime.database.unit_of_work() as session:
            found = await jobs.claim(
                session, owner="me", lease=LEASE, limit=limit, running=running
            )
            return sorted(job.name for job in found)

    assert await take(1) == ["test.slower"]
    assert await take(2, "test.slower") == ["test.slow", "test.slow"]
    running = ["test.slower", "test.slow", "test.slow"]
    assert await take(1, *running) == ["test.word"]
    assert await take(4, "test.slow") == [
        "test.slow",
        "test.slower",
        "test.word",
        "test.word",
    ]
    assert await take(4, *running) == ["test.word"]
    assert await take(4, *running) == []
    assert await take(4) == ["test.slow", "test.slower"]


async def test_a_job_whose_task_is_gone_holds_up_no_others(
    runtime: Runtime, log: Log
) -> None:
    queue.task("test.old")(log.run)
    async with runtime.database.unit_of_work() as session:
        jobs.enqueue(session, "test.old", word="old", max_attempts=1)
    queue._tasks.pop("test.old")
    await ask(runtime, "new")

    async with working(runtime):
        await reach(runtime, ["dead", "succeeded"])

    assert log.runs == ["new"]


async def test_a_long_job_keeps_its_claim(
    settings_with: Callable[..., Settings], database: Database, log: Log
) -> None:
    runtime = Runtime.build(settings_with(JOB_LEASE_SECONDS="3"))
    log.hold.clear()
    async with working(runtime):
        await ask(runtime, "long")
        await log.changed.wait()
        async with runtime.database.unit_of_work(read_only=True) as session:
            first = (await session.scalars(select(Job.lease_expires_at))).one()
        async with asyncio.timeout(10):
            renewed = first
            while renewed == first:
                await asyncio.sleep(0.02)
                async with runtime.database.unit_of_work(read_only=True) as session:
                    renewed = (
                        await session.scalars(select(Job.lease_expires_at))
                    ).one()
        log.hold.set()
        await reach(runtime, ["succeeded"])
    await runtime.close()

    assert log.runs == ["long"]


async def test_closing_gives_unfinished_work_back(runtime: Runtime, log: Log) -> None:
    log.hold.clear()
    async with working(runtime):
        await ask(runtime, "long")
        await log.changed.wait()
    assert await states(runtime) == ["running"]

    log.hold.set()
    async with working(runtime):
        await reach(runtime, ["succeeded"])
    assert log.runs == ["long", "long"]


async def test_a_scheduled_moment_runs_once_whoever_schedules(
    runtime: Runtime, log: Log
) -> None:
    queue.task("test.scheduled", every=timedelta(days=1))(log.run)

    async with working(runtime), working(runtime):
        await reach(runtime, ["succeeded"])
    async with working(runtime):
        await asyncio.sleep(0.1)

    assert log.runs == ["scheduled"]


async def test_old_jobs_are_purged(runtime: Runtime, log: Log) -> None:
    for word in ("old", "new"):
        await ask(runtime, word)
    async with working(runtime):
        await reach(runtime, ["succeeded"] * 2)
    async with runtime.database.unit_of_work() as session:
        old = (await session.scalars(select(Job).order_by(Job.id).limit(1))).one()
        old.finished_at = utcnow() - timedelta(days=8)

    await jobs.purge(runtime.database)

    assert await states(runtime) == ["succeeded"]


def test_two_tasks_cannot_share_a_name(log: Log) -> None:
    with pytest.raises(ValueError, match=r"test\.word"):
        queue.task("test.word")(log.run)


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 2), (2, 8), (3, 32), (9, 3600)])
def test_tries_back_off(attempt: int, seconds: int) -> None:
    assert queue.retry_delay(attempt) == timedelta(seconds=seconds)


@pytest.fixture(autouse=True)
def _forget_wakes() -> Iterator[None]:
    yield
    assert not jobs._wakes
