"""What desks do to accounts: each change is audited, and felt by every process."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import after_commit
from app.core.exceptions import FieldError, ValidationFailedError
from app.models import CreditEntry
from app.schemas.base import Page
from app.schemas.credits import CreditAdjustment, CreditEntryRead
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
    form: CreditAdjustment,
) -> None:
    """Add credits to a balance, or take them.

    Raises NotFoundError, and ConflictError where less than that is free.
    """
    limits = await limits_of(session, user_id)
    before, after = await accounts.adjust(session, limits, form.amount, note=form.note)
    await audit.record(
        session,
        actor,
        "credits.adjust",
        target=("user", user_id),
        before={"balance": before},
        after={"balance": after, "note": form.note},
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


async def page(
    session: AsyncSession, user_id: UUID, *, limit: int, cursor: str | None, offset: int
) -> Page[CreditEntryRead]:
    """A user's ledger, the newest first; the cursor is the last entry's id."""
    statement = select(CreditEntry).where(CreditEntry.user_id == user_id)
    if cursor is not None:
        statement = statement.where(CreditEntry.id < _position(cursor))
    newest_first = statement.order_by(CreditEntry.id.desc())
    found = (await session.scalars(newest_first.offset(offset).limit(limit + 1))).all()
    items = [CreditEntryRead.model_validate(entry) for entry in found[:limit]]
    more = len(found) > limit
    return Page(items=items, next_cursor=items[-1].id.hex if more else None)


def _position(cursor: str) -> UUID:
    try:
        return UUID(cursor)
    except ValueError:
        message = "is no cursor of this list: send a `next_cursor` unchanged"
        raise ValidationFailedError(
            f"`cursor` {message}.", errors=[FieldError(path="cursor", message=message)]
        ) from None
