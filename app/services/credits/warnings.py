"""Mails to who has used most of a limit, or all of it: one for each, and then no more.

Leased credits count as used: a little early is when a warning is of use.
"""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import CreditAccount, Limits, User
from app.services import mail
from app.services.credits.need import Need

_MOST, _ALL = 80, 100  # percent
_DOLLAR = 1_000_000


async def warn(
    session: AsyncSession,
    account: CreditAccount,
    limits: Limits,
    *,
    short: Need,
    left: Need,
    refused: bool,
) -> None:
    """Tell the user, if what is left of a limit is worth it; `account` is locked."""
    if limits.monthly_credits and short.credits > 0:
        reached = _reached(left.credits, limits.monthly_credits, refused=refused)
        if reached > account.warned_credits:
            account.warned_credits = reached
            what = f"the credits of this month (${limits.monthly_credits / _DOLLAR:g})"
            await _mail(session, account, reached, what, "when the next month begins")
    if limits.daily_conversations and short.conversations > 0:
        reached = _reached(
            left.conversations, limits.daily_conversations, refused=refused
        )
        if reached > account.warned_conversations:
            account.warned_conversations = reached
            what = f"the {limits.daily_conversations} messages of this day"
            await _mail(session, account, reached, what, "at midnight UTC")


def _reached(left: int, limit: int, *, refused: bool) -> int:
    if left * 100 > limit * (100 - _MOST):
        return 0
    return _ALL if refused else _MOST


async def _mail(
    session: AsyncSession, account: CreditAccount, reached: int, what: str, until: str
) -> None:
    address = await session.scalar(select(User.email).where(User.id == account.id))
    if address is not None:
        await mail.send(
            session,
            f"limit_{reached}",
            to=address,
            user_id=account.id,
            what=what,
            until=until,
        )
