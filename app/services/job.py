"""The `jobs` table: the authority for all background work.

A job is a row of the transaction that asks for it, so it exists exactly if the change
it follows does. Claiming is one UPDATE; a claim is a lease that a heartbeat renews, so
the work of a worker that died is taken up again. What keeps failing ends `dead`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.columns import UtcDateTime
from app.core.database import Database, after_commit, utcnow
from app.core.exceptions import ConflictError, NotFoundError
from app.core.queue import at_most, get_task, is_scheduled, retry_delay
from app.core.statements import Bound, Statement
from app.models import Job
from app.services.paging import Paging, page

_KEEP_SUCCEEDED = timedelta(days=7)
_KEEP_DEAD = timedelta(days=90)
_MAX_ERROR = 2000  # characters

_COLUMNS = tuple(column.key for column in Job.__table__.columns)
_INSERT = Statement(
    sqlite.insert(Job.__table__).on_conflict_do_nothing(  # type: ignore[arg-type]  # a mapped class's Table
        index_elements=[Job.unique_key]
    ),
    postgresql=postgresql.insert(Job.__table__).on_conflict_do_nothing(  # type: ignore[arg-type]  # the same
        index_elements=[Job.unique_key]
    ),
)

_wakes: set[Any] = set()


def enqueue(
    session: AsyncSession,
    name: str,
    *,
    run_at: datetime | None = None,
    unique_key: str | None = None,
    max_attempts: int = 5,
    **args: Any,
) -> Job:
    """Ask for `name` to be run with `args` (JSON values: ids, not things).

    Raises KeyError for a name that no task has.
    """
    get_task(name)
    job = Job(
        name=name,
        args=args,
        run_at=run_at or utcnow(),
        unique_key=unique_key,
        max_attempts=max_attempts,
    )
    session.add(job)
    after_commit(session, wake_workers)
    return job


def adding(name: str, *, unique_key: str | None = None, **args: Any) -> Bound:
    """The same as a statement of a script; `wake_workers` is called after it.

    It does nothing where another job has the key, which is free once that has ended.
    """
    get_task(name)
    now = utcnow()
    defaults = {"state": "queued", "attempts": 0, "max_attempts": 5}
    return _INSERT(
        **{
            **dict.fromkeys(_COLUMNS),
            **defaults,
            "id": uuid7(),
            "name": name,
            "unique_key": unique_key,
            "args": args,
            "run_at": now,
            "created_at": now,
        }
    )


async def enqueue_once(session: AsyncSession, name: str, *, unique_key: str) -> None:
    """The same for a scheduled moment: all schedulers ask, one job comes of it."""
    try:
        async with session.begin_nested():
            enqueue(session, name, unique_key=unique_key)
    except IntegrityError:
        return


async def any_due(database: Database) -> bool:
    """Whether `claim` can find something; it writes nothing, and takes no lock."""
    return bool((await database.run(_DUE(now=utcnow()), brief=True)).rows)


async def claim(
    session: AsyncSession,
    *,
    owner: str,
    lease: timedelta,
    limit: int,
    running: Iterable[str] = (),
) -> Sequence[Job]:
    """Take up to `limit` due jobs: queued ones, and running ones whose worker died.

    `running` names what this worker is at: of some tasks it takes no more than so many.
    """
    chosen = await _choose(session, Counter(running), limit)
    if not chosen:
        return []
    claimed = await session.scalars(
        update(Job)
        .where(Job.id.in_(chosen))
        .values(
            state="running",
            attempts=Job.attempts + 1,
            lease_owner=owner,
            lease_expires_at=utcnow() + lease,
        )
        .returning(Job)
    )
    return claimed.all()


async def _choose(
    session: AsyncSession, running: Counter[str], limit: int
) -> list[UUID]:
    """The jobs that have been due for the longest, of the tasks that have room.

    As long as one of their tasks is full after them, those behind them are looked at.
    """
    due = _due(utcnow())
    chosen: list[UUID] = []
    full = {name for name in running if _is_full(name, running)}
    while len(chosen) < limit:
        wanted = limit - len(chosen)
        found = await session.execute(
            select(Job.id, Job.name)
            .where(due, Job.name.not_in(full), Job.id.not_in(chosen))
            .order_by(Job.run_at)
            .limit(wanted)
            .with_for_update(skip_locked=True)
        )
        rows = found.all()
        for job_id, name in rows:
            if not _is_full(name, running):
                chosen.append(job_id)
                running[name] += 1
        now_full = {name for name in running if _is_full(name, running)}
        if len(rows) < wanted or now_full == full:
            break
        full = now_full
    return chosen


def _due(now: Any) -> ColumnElement[bool]:
    return or_(
        (Job.state == "queued") & (Job.run_at <= now),
        (Job.state == "running") & (Job.lease_expires_at < now),
    )


_DUE = Statement(
    select(Job.id).where(_due(bindparam("now", type_=UtcDateTime()))).limit(1)
)


def _is_full(name: str, running: Mapping[str, int]) -> bool:
    most = at_most(name)
    return most is not None and running[name] >= most


async def renew(
    session: AsyncSession, jobs: Iterable[Job], *, owner: str, lease: timedelta
) -> None:
    await session.execute(
        update(Job)
        .where(Job.id.in_([j.id for j in jobs]), Job.lease_owner == owner)
        .values(lease_expires_at=utcnow() + lease)
    )


async def succeed(session: AsyncSession, job: Job) -> None:
    await _end_claim(session, job, error=None, **_ended(job, "succeeded"))


async def fail(session: AsyncSession, job: Job, error: str) -> None:
    """Put it back for a later try, or to the dead after its last one."""
    if job.attempts >= job.max_attempts:
        ending = _ended(job, "dead")
    else:
        ending = {"state": "queued", "run_at": utcnow() + retry_delay(job.attempts)}
    await _end_claim(session, job, error=error[:_MAX_ERROR], **ending)


def _ended(job: Job, state: str) -> dict[str, Any]:
    """A scheduled moment is over for ever; any other key may be another job's now."""
    kept = job.unique_key if is_scheduled(job.name) else None
    return {"state": state, "finished_at": utcnow(), "unique_key": kept}


async def release(session: AsyncSession, *, owner: str | None = None) -> None:
    """Give back what is claimed: an owner's, or everything where nobody else works."""
    running = update(Job).where(Job.state == "running")
    if owner is not None:
        running = running.where(Job.lease_owner == owner)
    await session.execute(running.values(lease_expires_at=utcnow()))


async def listing(
    session: AsyncSession, at: Paging, *, state: str | None, name: str | None
) -> tuple[Sequence[Job], str | None]:
    """A page of jobs, the newest first, and the cursor of the next one."""
    statement = select(Job)
    if state is not None:
        statement = statement.where(Job.state == state)
    if name is not None:
        statement = statement.where(Job.name == name)
    return await page(session, statement, Job, at)


async def rerun(session: AsyncSession, job_id: UUID) -> Job:
    """Give a dead job all its tries again; ConflictError for one that is not dead."""
    job = await session.get(Job, job_id, with_for_update=True)
    if job is None:
        raise NotFoundError("There is no job with this id.")
    if job.state != "dead":
        raise ConflictError(f"This job is {job.state}.", code="wrong_status")
    job.state, job.attempts, job.finished_at = "queued", 0, None
    job.run_at = utcnow()
    after_commit(session, wake_workers)
    return job


async def purge(database: Database) -> None:
    now = utcnow()
    await database.delete_in_chunks(
        Job,
        or_(
            (Job.state == "succeeded") & (Job.finished_at < now - _KEEP_SUCCEEDED),
            (Job.state == "dead") & (Job.finished_at < now - _KEEP_DEAD),
        ),
    )


def on_enqueued(wake: Any) -> None:
    """Have `wake()` called whenever this process has stored new work."""
    _wakes.add(wake)


def off_enqueued(wake: Any) -> None:
    _wakes.discard(wake)


def wake_workers() -> None:
    for wake in tuple(_wakes):
        wake()


async def _end_claim(session: AsyncSession, job: Job, **values: Any) -> None:
    # Only the claim's own holder may end it: a lease that ran out is another's now.
    await session.execute(
        update(Job)
        .where(
            Job.id == job.id,
            Job.lease_owner == job.lease_owner,
            Job.attempts == job.attempts,
        )
        .values(lease_owner=None, lease_expires_at=None, **values)
    )
