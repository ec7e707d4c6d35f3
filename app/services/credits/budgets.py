"""Daily budgets of API keys: the rules and the SQL.

What a key has spent on a day is the sum of its `usage_days`; what processes may still
spend of the rest is leased to them. Whoever leases locks the key's row first. A batch
adds to the one and takes from the other in one transaction, and both are read by one
statement: so what is decided from them holds without another lock.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.statements import Script, Statement
from app.models import ApiKey, KeyLease, UsageDay
from app.services.credits.accounts import INSERTS, require_alive
from app.services.credits.need import Need, Taken, portion


class Share(NamedTuple):
    """Whose part of which budget."""

    holder_id: UUID
    key_id: UUID
    day: date


class KeyLine(NamedTuple):
    """A budget's lease as its process has it: so many credits from now on.

    A `closed` one is given up; of one that is `told`, somebody asked for what is free.
    """

    key_id: UUID
    day: date
    credits: int
    closed: bool
    told: bool


async def lease(
    session: AsyncSession,
    share: Share,
    *,
    user_id: UUID,
    limit: int,
    held: int,
    short: int,
    now: datetime,
) -> Taken:
    """Add to what a process holds: what is short, and a part of what is left.

    Raises HolderLostError.
    """
    await require_alive(session, share.holder_id, now)
    key = select(ApiKey.id).where(ApiKey.id == share.key_id)
    if await session.scalar(key.with_for_update(key_share=True)) is None:
        return Taken(Need(), Need(), share.day)  # its user was erased
    spent, others = await _counted(session, share, user_id)
    left = max(limit - spent - others - held, 0)
    if short > left:
        return Taken(Need(), Need(left), share.day, elsewhere=others > 0)
    got = portion(short, left)
    await _hold(session, share, held + got)
    return Taken(Need(got), Need(left - got), share.day)


async def _counted(
    session: AsyncSession, share: Share, user_id: UUID
) -> tuple[int, int]:
    """What was spent, and what other processes hold."""
    spent = select(func.coalesce(func.sum(UsageDay.credits), 0)).where(
        UsageDay.user_id == user_id,
        UsageDay.day == share.day,
        UsageDay.key_id == share.key_id,
    )
    others = select(func.coalesce(func.sum(KeyLease.credits), 0)).where(
        KeyLease.key_id == share.key_id,
        KeyLease.day == share.day,
        KeyLease.holder_id != share.holder_id,
    )
    found = await session.execute(
        select(spent.scalar_subquery(), others.scalar_subquery())
    )
    row = found.one()
    return int(row[0]), int(row[1])


async def _hold(session: AsyncSession, share: Share, credits_: int) -> None:
    insert = INSERTS[session.get_bind().dialect.name](KeyLease)
    await session.execute(
        insert.values(
            id=uuid7(), **share._asdict(), credits=credits_
        ).on_conflict_do_update(
            index_elements=list(Share._fields), set_={"credits": credits_}
        )
    )


def holding(holder_id: UUID, lines: Sequence[KeyLine]) -> Script[None]:
    """Note what a process still holds; the usage of the same batch has the rest."""
    for statement, closed in ((_GO_ON, False), (_CLOSE, True)):
        rows: list[Mapping[str, Any]] = [
            {"holder": holder_id, "key": line.key_id, "of_day": line.day}
            | ({} if closed else {"new_credits": line.credits})
            for line in lines
            if line.closed == closed
        ]
        if rows:
            yield statement.each(rows)


_LEASES: Any = KeyLease.__table__
_OURS = (
    _LEASES.c.holder_id == bindparam("holder"),
    _LEASES.c.key_id == bindparam("key"),
    _LEASES.c.day == bindparam("of_day"),
)
_GO_ON = Statement(
    update(_LEASES).where(*_OURS).values(credits=bindparam("new_credits"))
)
_CLOSE = Statement(delete(_LEASES).where(*_OURS))
