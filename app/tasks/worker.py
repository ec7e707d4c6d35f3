"""The embedded worker: runs jobs inside the server, a few at a time.

Each job is claimed with a lease that a heartbeat renews. A worker that dies leaves its
claims to run out; whoever looks next takes them up again.
"""

import asyncio
import os
import socket
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from app.core.database import utcnow
from app.core.exceptions import AppError
from app.core.logging import about
from app.core.metrics import JOBS
from app.core.queue import Task, get_task, scheduled_tasks
from app.models import Job
from app.services import job as jobs
from app.services.runtime import Runtime

_FIRST_SECONDS = 5.0
"""After its start, before a server does what it does by the hour or the day: those who
wait for it come first, and one that falls over and over again has other cares."""

_log = structlog.get_logger()


class Worker:
    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings.jobs
        self._runtime = runtime
        self._database = runtime.database
        self._concurrency = settings.concurrency
        self._poll = settings.poll_seconds
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._owner = f"{socket.gethostname()[:40]}:{os.getpid()}"
        self._wake = asyncio.Event()
        self._running: dict[asyncio.Task[None], Job] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._moments: set[asyncio.Task[None]] = set()
        self._scheduler = AsyncIOScheduler(timezone="UTC")

    async def open(self, *, alone: bool, first: float = _FIRST_SECONDS) -> None:
        """Begin; `alone` where no other worker can hold a claim that is still alive.

        What is scheduled is asked for after `first` seconds, and then by its time.
        """
        if alone:
            async with self._database.unit_of_work() as session:
                await jobs.release(session)
        jobs.on_enqueued(self._wake.set)
        self._loop(self._work())
        self._loop(self._heartbeat())
        first_time = utcnow() + timedelta(seconds=first)
        for scheduled in scheduled_tasks():
            self._scheduler.add_job(
                self._begin_moment,
                "interval",
                seconds=scheduled.every.total_seconds() if scheduled.every else 0,
                args=[scheduled],
                next_run_time=first_time,
                coalesce=True,
            )
        self._scheduler.start()

    async def close(self, seconds: float) -> None:
        """Let running jobs end for so long; give the others' claims back."""
        jobs.off_enqueued(self._wake.set)
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        for loop in (*self._loops, *self._moments):
            loop.cancel()
            with suppress(asyncio.CancelledError):
                await loop
        if not self._running:
            return
        await asyncio.wait(self._running, timeout=seconds)
        for left in tuple(self._running):
            left.cancel()
            with suppress(asyncio.CancelledError):
                await left
        with suppress(AppError):
            async with self._database.unit_of_work() as session:
                await jobs.release(session, owner=self._owner)

    def _loop(self, work: Coroutine[Any, Any, None]) -> None:
        self._loops.append(asyncio.create_task(work))

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            found = await self._claim()
            for job in found:
                running = asyncio.create_task(self._run(job))
                self._running[running] = job
                running.add_done_callback(self._ended)
            if not found:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll):
                        await self._wake.wait()

    async def _claim(self) -> list[Job]:
        free = self._concurrency - len(self._running)
        if free <= 0:
            return []
        try:
            if not await jobs.any_due(self._database):
                return []
            async with self._database.unit_of_work() as session:
                found = await jobs.claim(
                    session,
                    owner=self._owner,
                    lease=self._lease,
                    limit=free,
                    running=[job.name for job in self._running.values()],
                )
                return list(found)
        except AppError as error:
            _log.warning("jobs not read", code=error.code)
            return []

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            if not self._running:
                continue
            with suppress(AppError):
                async with self._database.unit_of_work() as session:
                    await jobs.renew(
                        session,
                        self._running.values(),
                        owner=self._owner,
                        lease=self._lease,
                    )

    async def _run(self, job: Job) -> None:
        about.set({"job_id": str(job.id), "job": job.name})
        error = await self._try(job)
        JOBS.labels(job.name, "failed" if error else "succeeded").inc()
        try:
            async with self._database.unit_of_work() as session:
                if error is None:
                    await jobs.succeed(session, job)
                else:
                    await jobs.fail(session, job, error)
        except AppError as unreachable:
            # The lease runs out, and the job is run again: tasks bear that.
            _log.warning("job's end not stored", code=unreachable.code)

    async def _try(self, job: Job) -> str | None:
        """Run the task; the error in words where it failed."""
        if job.attempts > job.max_attempts:
            return job.error or "Its worker died each time."
        try:
            await get_task(job.name).function(self._runtime, **job.args)
        except Exception as error:  # noqa: BLE001 - the top of a worker loop: any task may fail
            _log.warning("job failed", attempt=job.attempts, exc_info=error)
            return f"{type(error).__name__}: {error}"
        return None

    def _ended(self, running: asyncio.Task[None]) -> None:
        del self._running[running]
        self._wake.set()

    async def _begin_moment(self, scheduled: Task) -> None:
        """Have a task of ours enqueue the moment: `close` waits for its end.

        The scheduler cancels what runs and does not wait. When the event loop ends, it
        would be cancelled again, and aiosqlite's close, cancelled twice, never returns.
        """
        moment = asyncio.create_task(self._enqueue_moment(scheduled))
        self._moments.add(moment)
        moment.add_done_callback(self._moments.discard)

    async def _enqueue_moment(self, scheduled: Task) -> None:
        assert scheduled.every is not None
        moment = int(utcnow().timestamp() // scheduled.every.total_seconds())
        with suppress(AppError):
            async with self._database.unit_of_work() as session:
                await jobs.enqueue_once(
                    session, scheduled.name, unique_key=f"{scheduled.name}@{moment}"
                )
