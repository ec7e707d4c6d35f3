"""Balances and leases: the rules and the SQL.

Whoever changes an account locks its row first, so what is decided from it holds. The
balance is the sum of the ledger at every commit: each change of it adds an entry.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.database import utcnow
from app.core.exceptions import ConflictError
from app.models import CreditAccount, CreditEntry, CreditLease

if TYPE_CHECKING:
    from app.services.plan import Limits

_SHARE = 8
"""A lease takes an eighth of what is left besides what it is for: the others find
something, and a user who spends much still asks seldom."""

INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
"""The dialects' own, for `ON CONFLICT`."""


@dataclass(frozen=True, slots=True)
class Need:
    """What is asked for; or what there is."""

    credits: int = 0
    conversations: int = 0

    @property
    def nothing(self) -> bool:
        return self.credits <= 0 and self.conversations <= 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What a lease got: nothing, where there was less than `short`.

    `left` is what the account has besides it, `elsewhere` whether others hold more.
    """

    got: Need
    left: Need
    day: date
    elsewhere: bool


async def lease(
    session: AsyncSession,
    limits: "Limits",
    *,
    holder_id: UUID,
    held: Need,
    short: Need,
    now: datetime,
) -> Taken:
    """Add to the lease of a process that holds so much: what is short, and a share."""
    account = await locked(session, limits, now)
    row = await session.scalar(
        select(CreditLease).where(
            CreditLease.holder_id == holder_id, CreditLease.user_id == account.id
        )
    )
    if row is None:
        row = CreditLease(
            holder_id=holder_id, user_id=account.id, credits=0, spent=0, conversations=0
        )
        session.add(row)
    # What the row says may be more than the process knows, where an answer was lost.
    others = account.leased - row.credits
    ours = row.conversations if row.day == account.day else 0
    held_today = held.conversations if row.day == account.day else 0
    used = account.conversations - ours + held_today
    most = limits.daily_conversations or 0
    left = Need(account.balance - others - held.credits, max(most - used, 0))
    got = Need()
    if short.credits <= left.credits and short.conversations <= left.conversations:
        got = Need(
            _portion(short.credits, left.credits),
            _portion(short.conversations, left.conversations),
        )
    row.credits = held.credits + got.credits
    row.conversations = held_today + got.conversations
    row.day = account.day
    account.leased = others + row.credits
    account.conversations = used + got.conversations
    await session.flush()
    assert account.day is not None
    return Taken(
        got=got,
        left=Need(left.credits - got.credits, left.conversations - got.conversations),
        day=account.day,
        elsewhere=others > 0 or used > held_today,
    )


def _portion(short: int, left: int) -> int:
    return short + (left - short) // _SHARE if short > 0 else 0


async def locked(
    session: AsyncSession, limits: "Limits", now: datetime
) -> CreditAccount:
    """A user's account, made at need; its month and its day are today's.

    Nothing else changes them, and only under the row's lock: so a month is granted and
    a day begins once, whoever comes first and however often.
    """
    account = await _locked(session, limits.user_id)
    period, today = f"{now:%Y-%m}", now.date()
    if account.period is None or account.period < period:
        account.period, account.warned_credits = period, 0
        _fill(session, account, limits, period=period)
    if account.day is None or account.day < today:
        account.day = today
        account.conversations = account.warned_conversations = 0
    return account


async def _locked(session: AsyncSession, user_id: UUID) -> CreditAccount:
    statement = (
        select(CreditAccount).where(CreditAccount.id == user_id).with_for_update()
    )
    account = await session.scalar(statement)
    if account is None:
        # Somebody who was deleted and restored has a ledger already.
        balance = select(func.coalesce(func.sum(CreditEntry.amount), 0)).where(
            CreditEntry.user_id == user_id
        )
        insert = INSERTS[session.get_bind().dialect.name](CreditAccount)
        await session.execute(
            insert.values(
                id=user_id, balance=balance.scalar_subquery()
            ).on_conflict_do_nothing()
        )
        account = (await session.scalars(statement)).one()
    return account


async def fill_up(session: AsyncSession, limits: "Limits", *, note: str) -> None:
    """Raise the balance to what the limits give for a month, unless it is higher."""
    account = await locked(session, limits, utcnow())
    _fill(session, account, limits, note=note)
    account.warned_credits = account.warned_conversations = 0
    await session.flush()


def _fill(
    session: AsyncSession, account: CreditAccount, limits: "Limits", **entry: str
) -> None:
    missing = (limits.monthly_credits or 0) - account.balance
    if missing > 0:
        _book(session, account, "grant", missing, **entry)


async def adjust(
    session: AsyncSession, limits: "Limits", amount: int, *, note: str
) -> CreditAccount:
    """Add to a balance, or take from it.

    Raises ConflictError where less than that is there and not in use.
    """
    account = await locked(session, limits, utcnow())
    if account.balance - account.leased + amount < 0:
        free = account.balance - account.leased
        raise ConflictError(
            f"Only {free} of {account.balance} credits are free to be taken: the rest "
            "is held for calls in progress.",
            code="credits_in_use",
        )
    _book(session, account, "adjustment", amount, note=note)
    if amount > 0:
        account.warned_credits = 0
    await session.flush()
    return account


async def charge(
    session: AsyncSession, limits: "Limits", amount: int, *, now: datetime
) -> int:
    """Take what a call cost that nothing was reserved for; gives what was there."""
    if limits.monthly_credits is None:
        return amount
    account = await locked(session, limits, now)
    charged = min(amount, account.balance - account.leased)
    if charged > 0:
        _book(session, account, "usage", -charged)
    await session.flush()
    return charged


async def reset_day(session: AsyncSession, limits: "Limits") -> None:
    """Have a user's day begin anew; what processes hold for it stays counted."""
    account = await locked(session, limits, utcnow())
    held = await session.scalar(
        select(func.coalesce(func.sum(CreditLease.conversations), 0)).where(
            CreditLease.user_id == account.id, CreditLease.day == account.day
        )
    )
    account.conversations, account.warned_conversations = held or 0, 0
    await session.flush()


def _book(
    session: AsyncSession,
    account: CreditAccount,
    kind: str,
    amount: int,
    **more: str,
) -> None:
    account.balance += amount
    session.add(
        CreditEntry(
            id=uuid7(), user_id=account.id, kind=kind, amount=amount, **more
        )
    )
