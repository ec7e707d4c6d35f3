"""Lets message logs go when their time is up."""

import asyncio
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select

from app.core.database import Database, changed_rows
from app.models import MessageLog

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


def first_id(moment: datetime) -> UUID:
    """The lowest UUIDv7 of this millisecond (RFC 9562, section 5.7)."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
