from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import utcnow
from app.models import Chat, Job, Message, User, UserSession, first_id
from app.schemas.desk import Stats
from app.services import audit
from app.services import job as jobs
from app.services.audit import Actor

_PERIODS = {
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "month": timedelta(days=30),
}


async def rerun(session: AsyncSession, actor: Actor, job_id: UUID) -> Job:
    """Give a dead job all its tries again; ConflictError for one that is not dead."""
    job = await jobs.rerun(session, job_id)
    await audit.record(
        session, actor, "job.rerun", target=("job", job.id), after={"name": job.name}
    )
    return job


async def count(session: AsyncSession) -> Stats:
    now = utcnow()
    new_users = {}
    for name, period in _PERIODS.items():
        new_users[name] = await _since(session, User, now - period)
    by_status = select(User.status, func.count()).group_by(User.status)
    by_state = select(Job.state, func.count()).group_by(Job.state)
    sessions = select(func.count(UserSession.id)).where(
        UserSession.revoked_at.is_(None), UserSession.expires_at > now
    )
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return Stats(
        users=dict((await session.execute(by_status)).all()),
        new_users=new_users,
        active_sessions=await session.scalar(sessions) or 0,
        chats=await session.scalar(select(func.count(Chat.id))) or 0,
        messages_today=await _since(session, Message, midnight),
        jobs=dict((await session.execute(by_state)).all()),
    )


async def _since(
    session: AsyncSession, model: type[User | Message], moment: datetime
) -> int:
    """How many were made since then, along the keys, which tell the time."""
    made = select(func.count(model.id)).where(model.id >= first_id(moment))
    return await session.scalar(made) or 0
