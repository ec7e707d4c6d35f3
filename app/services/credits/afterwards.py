"""Calls that nothing is reserved for, in the transaction of whoever tells of them.

As what a dead process has left, or what external applications report.
"""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import utcnow
from app.core.statements import play
from app.integrations.llm.base import Usage
from app.services.credits import accounts
from app.services.credits.purse import Call
from app.services.credits.tally import Tally, counting
from app.services.plan import limits_of


async def charge(
    session: AsyncSession, user_id: UUID, actual: int, usage: Usage, call: Call
) -> int:
    """Book a call; gives what the user pays: what there is.

    The rest is the installation's. A user who was deleted meanwhile pays, too.
    """
    limits, now = await limits_of(session, user_id, deleted=True), utcnow()
    paid = await accounts.charge(session, limits, actual, now=now)
    tally = Tally()
    tally.count(call.by(user_id, now.date()), usage, paid=paid, absorbed=actual - paid)
    await play(session, counting(tally))
    return paid
