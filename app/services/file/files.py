"""The rows of files: listed, shown, renamed, deleted."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import File
from app.schemas.file import FileUpdate
from app.services.authorization import Principal, require, visible_to
from app.services.file.inspection import remove
from app.services.paging import Paging, page


async def listing(
    session: AsyncSession, principal: Principal, at: Paging
) -> tuple[Sequence[File], str | None]:
    """A page, the newest first, and the cursor of the next one."""
    return await page(session, visible_to(principal, File), File, at)


async def get(session: AsyncSession, principal: Principal, file_id: UUID) -> File:
    return await require(session, principal, File, file_id)


async def change(
    session: AsyncSession, principal: Principal, file_id: UUID, form: FileUpdate
) -> File:
    file = await require(session, principal, File, file_id)
    file.name = form.name
    await session.flush()
    return file


async def delete(session: AsyncSession, principal: Principal, file_id: UUID) -> None:
    """Delete it with its text, thumbnail and bytes; messages keep its name alone."""
    file = await require(session, principal, File, file_id, lock=True)
    remove(session, file)
    await session.delete(file)


async def stored_bytes(session: AsyncSession, user_id: UUID) -> int:
    """What counts towards the storage of a user's plan."""
    used = await session.scalar(
        select(func.coalesce(func.sum(File.size), 0)).where(
            File.user_id == user_id, File.status != "rejected"
        )
    )
    return int(used or 0)
