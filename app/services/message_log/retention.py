"""What is kept of whom, and for how long."""

import asyncio
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import Database, changed_rows
from app.models import MessageLog, first_id
from app.schemas.message_log import TextKeeping
from app.services import audit
from app.services.audit import Actor
from app.services.desk import users

_CHUNK = 1000
_PAUSE = 0.05  # seconds in which others may write


async def purge(database: Database, before: datetime) -> int:
    """Delete what is older, in chunks: no transaction is long, nobody waits for all."""
    old = (
        select(MessageLog.id)
        .where(MessageLog.id < first_id(before))
        .order_by(MessageLog.id)
        .limit(_CHUNK)
    )
    deleted = 0
    while True:
        async with database.unit_of_work() as session:
            done = await session.execute(
                delete(MessageLog).where(MessageLog.id.in_(old))
            )
        count = changed_rows(done)
        deleted += count
        if count < _CHUNK:
            return deleted
        await asyncio.sleep(_PAUSE)


async def set_text_keeping(
    session: AsyncSession, actor: Actor, user_id: UUID, form: TextKeeping
) -> TextKeeping:
    """From now on; what is stored stays until its time is up."""
    user = await users.get(session, user_id, lock=True)
    before, user.log_messages = user.log_messages, form.keep_text
    await audit.record(
        session,
        actor,
        "message_log.set_text_keeping",
        target=("user", user_id),
        before={"keep_text": before},
        after={"keep_text": form.keep_text},
    )
    return form
