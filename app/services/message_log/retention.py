"""What is kept of whom, and for how long."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import Database
from app.models import MessageLog, first_id
from app.schemas.message_log import TextKeeping
from app.services import audit
from app.services.audit import Actor
from app.services.desk import users


async def purge(database: Database, before: datetime) -> int:
    """Delete what is older; gives how many there were."""
    return await database.delete_in_chunks(MessageLog, MessageLog.id < first_id(before))


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
