"""What was deleted goes for good: by request, or when its time is up.

A person's rows may be many, and SQLite lets one write at a time; so they go in batches,
each a transaction of its own. What is being erased is past its purge date: nobody can
restore it, and whatever breaks off here, the next purge ends it.
"""

from datetime import timedelta
from uuid import UUID

import orjson
import structlog
from sqlalchemy import Table, Text, cast, delete, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import AccountSettings
from app.core.crypto import Crypto, CryptoError
from app.core.database import Database, changed_rows, utcnow
from app.core.exceptions import AppError
from app.integrations.mail.base import Mailer
from app.models import (
    DeletedUser,
    IdempotencyKey,
    Job,
    MailLink,
    Project,
    User,
)
from app.schemas.account import ErasureReport
from app.services import audit
from app.services.account import holdings, sealing
from app.services.account.accounts import not_deleted
from app.services.audit import SYSTEM, Actor
from app.services.file.sweeping import Sweeper
from app.services.knowledge.indexing import Indexing

_BATCH = 20  # rows, with all that hangs on them: a chat may have many messages
_log = structlog.get_logger()


class Erasure:
    def __init__(
        self,
        settings: AccountSettings,
        *,
        database: Database,
        crypto: Crypto,
        mailer: Mailer,
        sweeper: Sweeper,
        indexing: Indexing,
    ) -> None:
        self._keep_backups = timedelta(days=settings.keep_backups_days)
        self._database = database
        self._crypto = crypto
        self._mailer = mailer
        self._sweeper = sweeper
        self._indexing = indexing

    async def erase(self, actor: Actor, user_id: UUID) -> ErasureReport:
        """Leave nothing of a deleted account; NotFoundError for one that is not."""
        address = await self._condemn(actor, user_id)
        rows = await self._count(user_id)
        await self._empty_projects(user_id)
        for table in _emptied_first():
            while await self._delete_some(table, user_id):
                pass
        if address is not None:
            await self._mailer.forget(address)
        await self._sweeper.erase(user_id)
        now = utcnow()
        report = ErasureReport(
            user_id=user_id,
            erased_at=now,
            rows=rows,
            backups_expire_at=now + self._keep_backups,
            tuned_models=[],  # none while Workroom tunes none
        )
        async with self._database.unit_of_work() as session:
            await _delete_jobs(session, user_id, address)
            await session.execute(delete(MailLink).where(MailLink.email == address))
            await _delete_answers(session, user_id)
            await _clear_kept(session, user_id)
            await audit.forget(session, user_id)
            for table in _emptied_first():  # what came meanwhile
                await session.execute(
                    delete(table).where(holdings.owned_by(table, user_id))
                )
            await session.execute(delete(User).where(User.id == user_id))
            await audit.record(
                session,
                actor,
                "user.erase",
                target=("user", user_id),
                after=report.model_dump(mode="json", exclude={"user_id"}),
            )
        return report

    async def purge(self) -> None:
        """Erase every account whose time is up; one that fails stops no other.

        It is tried again with the next purge; raises the last failure.
        """
        async with self._database.unit_of_work(read_only=True) as session:
            due = await session.scalars(
                select(DeletedUser.id).where(DeletedUser.purge_at <= utcnow())
            )
            ids = due.all()
        failure: Exception | None = None
        for user_id in ids:
            try:
                await self.erase(SYSTEM, user_id)
            except (AppError, SQLAlchemyError) as error:
                _log.error("account not erased", user_id=str(user_id), exc_info=error)
                failure = error
        if failure is not None:
            raise failure

    async def _condemn(self, actor: Actor, user_id: UUID) -> str | None:
        """From here on nobody can restore it. Gives its address where that opens."""
        async with self._database.unit_of_work() as session:
            deleted = await session.scalar(
                select(DeletedUser).where(DeletedUser.id == user_id).with_for_update()
            )
            if deleted is None:
                raise not_deleted()
            if deleted.purge_at > utcnow():
                deleted.purge_at = utcnow()
                target = ("user", user_id)
                await audit.record(session, actor, "erasure.request", target=target)
            try:
                row = sealing.unseal(self._crypto, user_id, deleted.sealed).row
            except CryptoError:  # its key is lost, and with it what it held
                return None
            return str(row["email"])

    async def _count(self, user_id: UUID) -> dict[str, int]:
        async with self._database.unit_of_work(read_only=True) as session:
            counts = {
                table.name: await session.scalar(
                    select(func.count())
                    .select_from(table)
                    .where(holdings.owned_by(table, user_id))
                )
                for table in holdings.tables()
                if holdings.OWNED[table.name].kept is None
            }
        return {name: count for name, count in counts.items() if count}

    async def _empty_projects(self, user_id: UUID) -> None:
        """A project has so many rows that they go in batches of their own."""
        async with self._database.unit_of_work(read_only=True) as session:
            found = await session.scalars(
                select(Project.id).where(Project.user_id == user_id)
            )
            projects = found.all()
        for project_id in projects:
            await self._indexing.remove_all(project_id)

    async def _delete_some(self, table: Table, user_id: UUID) -> int:
        (key,) = table.primary_key.columns
        some = select(key).where(holdings.owned_by(table, user_id)).limit(_BATCH)
        async with self._database.unit_of_work() as session:
            return changed_rows(
                await session.execute(delete(table).where(key.in_(some)))
            )


def _emptied_first() -> list[Table]:
    """What goes before the user's row, and not only with it."""
    return [
        table
        for table in holdings.heads()
        if holdings.OWNED[table.name].kept is None
        and table is not DeletedUser.__table__  # as long as it is there, we come back
    ]


async def _clear_kept(session: AsyncSession, user_id: UUID) -> None:
    for table in holdings.heads():
        if cleared := holdings.OWNED[table.name].cleared:
            await session.execute(
                update(table)
                .where(holdings.owned_by(table, user_id))
                .values(dict.fromkeys(cleared))
            )


async def _delete_answers(session: AsyncSession, user_id: UUID) -> None:
    """What the desk was told of the person, kept in case it asks again."""
    await session.execute(
        delete(IdempotencyKey).where(IdempotencyKey.resource_id == user_id)
    )


async def _delete_jobs(
    session: AsyncSession, user_id: UUID, address: str | None
) -> None:
    """Those whose arguments name the person, this erasure's own among them."""
    named = [str(user_id)]
    if address is not None:
        named.append(orjson.dumps(address).decode())  # whole, not as a part of another
    arguments = cast(Job.args, Text)
    await session.execute(
        delete(Job).where(or_(*(arguments.contains(n, autoescape=True) for n in named)))
    )
