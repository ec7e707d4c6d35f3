"""Storage and database agree: what one has and the other does not know of, goes."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import select

from app.core.database import Database, utcnow
from app.integrations.storage.base import Storage
from app.models import File, Job
from app.services.file import places
from app.services.file.inspection import reject

_YOUNG = timedelta(hours=1)
"""A file is stored a moment before its row."""

_ABANDONED = timedelta(days=1)
"""An upload that is still going on has begun later than that."""

_BATCH = 200


class Sweeper:
    def __init__(self, *, database: Database, storage: Storage) -> None:
        self._database = database
        self._storage = storage

    async def sweep(self) -> None:
        """Delete what no row names, and end what will never be ready."""
        now = utcnow()
        await self._storage.sweep(now - _ABANDONED)
        await self._reject_abandoned()
        for folder in places.FOLDERS:
            some: list[str] = []
            async for one in self._storage.objects(f"{folder}/"):
                if one.modified_at < now - _YOUNG:
                    some.append(one.key)
                if len(some) == _BATCH:
                    await self._delete_orphans(some)
                    some = []
            await self._delete_orphans(some)

    async def remove(self, user_id: UUID, file_id: UUID) -> None:
        """Delete what storage has of a file that is no more, or was rejected."""
        await self._delete_orphans(
            [
                places.original(user_id, file_id),
                places.thumbnail(user_id, file_id),
                places.scaled(user_id, file_id),
            ]
        )

    async def erase(self, user_id: UUID) -> None:
        """Leave nothing of a user."""
        for folder in places.all_of(user_id):
            keys = [one.key async for one in self._storage.objects(folder)]
            await self._storage.delete(keys)

    async def _delete_orphans(self, keys: list[str]) -> None:
        ids = {key: file_id for key in keys if (file_id := places.file_id(key))}
        async with self._database.unit_of_work(read_only=True) as session:
            living = await session.scalars(
                select(File.id).where(
                    File.id.in_(ids.values()), File.status != "rejected"
                )
            )
            known = set(living)
        await self._storage.delete(
            [k for k, owner in ids.items() if owner not in known]
        )

    async def _reject_abandoned(self) -> None:
        """Those that no job will look into any more: its tries are used up."""
        async with self._database.unit_of_work() as session:
            waiting = await session.scalars(
                select(Job.args).where(
                    Job.name == "file.inspect", Job.state.in_(["queued", "running"])
                )
            )
            awaited = {args["file_id"] for args in waiting}
            pending = await session.scalars(
                select(File)
                .where(File.status == "pending", File.created_at < utcnow() - _YOUNG)
                .with_for_update(skip_locked=True)
            )
            for file in pending:
                if str(file.id) not in awaited:
                    reject(session, file, "could not be looked into")
