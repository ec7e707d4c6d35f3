"""What desks do to accounts: each change is audited, and felt by every process."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import after_commit
from app.models import CreditEntry
from app.services import audit
from app.services.audit import Actor
from app.services.credits import accounts
from app.services.credits.leasing import Credits
from app.services.plan import limits_of


async def adjust(
    session: AsyncSession,
    credits_: Credits,
    actor: Actor,
    user_id: UUID,
    *,
    amount: int,
    note: str,
) -> None:
    """Add credits to a balance, or take them.

    Raises NotFoundError, and ConflictError where less than that is free.
    """
    limits = await limits_of(session, user_id)
    before, after = await accounts.adjust(session, limits, amount, note=note)
    await audit.record(
        session,
        actor,
        "credits.adjust",
        target=("user", user_id),
        before={"balance": before},
        after={"balance": after, "note": note},
    )
    after_commit(session, lambda: credits_.tell_changed(user_id))


async def reset_day(
    session: AsyncSession, credits_: Credits, actor: Actor, user_id: UUID
) -> None:
    """Give a user today's conversations again."""
    used = await accounts.reset_day(session, await limits_of(session, user_id))
    await audit.record(
        session,
        actor,
        "limits.reset",
        target=("user", user_id),
        before={"conversations": used},
    )
    after_commit(session, lambda: credits_.tell_changed(user_id))


async def entries(
    session: AsyncSession, user_id: UUID, *, limit: int, before: UUID | None
) -> Sequence[CreditEntry]:
    """A user's ledger, the newest first, from the entry `before` on."""
    statement = select(CreditEntry).where(CreditEntry.user_id == user_id)
    if before is not None:
        statement = statement.where(CreditEntry.id < before)
    found = await session.scalars(
        statement.order_by(CreditEntry.id.desc()).limit(limit)
    )
    return found.all()
