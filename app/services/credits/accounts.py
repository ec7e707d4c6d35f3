"""Balances and leases: the rules and the SQL.

Whoever changes an account locks its row first, so what is decided from it holds. The
balance is the sum of the ledger at every commit: each change of it adds an entry.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.database import utcnow
from app.core.exceptions import ConflictError
from app.models import (
    CreditAccount,
    CreditEntry,
    CreditHolder,
    CreditLease,
    Limits,
)
from app.services.credits.need import Need, Taken, portion
from app.services.credits.warnings import warn

INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
"""The dialects' own, for `ON CONFLICT`."""


class HolderLostError(Exception):
    """This process did not renew in time: others have taken back what it held.

    `written` where what it wanted to write had been written before that.
    """

    def __init__(self, *, written: bool = False) -> None:
        super().__init__()
        self.written = written


async def lease(
    session: AsyncSession,
    limits: Limits,
    *,
    holder_id: UUID,
    held: Need,
    short: Need,
    now: datetime,
) -> Taken:
    """Add to the lease of a process that holds so much: what is short, and a share.

    Raises HolderLostError.
    """
    await require_alive(session, holder_id, now)
    account = await locked(session, limits, now)
    assert account.day is not None
    row = await _lease_of(session, account, holder_id)
    # What the row says may be more than the process knows, where an answer was lost.
    others = account.leased - row.credits
    most = limits.daily_conversations or 0
    left = Need(
        account.balance - others - held.credits, max(most - account.conversations, 0)
    )
    refused = short.credits > left.credits or short.conversations > left.conversations
    got = Need()
    if not refused:
        got = Need(
            portion(short.credits, left.credits),
            portion(short.conversations, left.conversations),
        )
    left = Need(left.credits - got.credits, left.conversations - got.conversations)
    kept = held.conversations if row.day == account.day else 0
    row.credits = held.credits + got.credits
    row.conversations, row.day = kept + got.conversations, account.day
    account.leased = others + row.credits
    account.conversations += got.conversations
    await warn(session, account, limits, short=short, left=left, refused=refused)
    await session.flush()
    elsewhere = refused and await _others_hold(session, account, holder_id)
    return Taken(got=got, left=left, day=account.day, elsewhere=elsewhere)


async def require_alive(session: AsyncSession, holder_id: UUID, now: datetime) -> None:
    """And keep the holder so until the transaction's end."""
    alive = await session.scalar(
        select(CreditHolder.id)
        .where(
            CreditHolder.id == holder_id,
            CreditHolder.expires_at > now,
            CreditHolder.taken_back_at.is_(None),
        )
        .with_for_update(read=True)
    )
    if alive is None:
        raise HolderLostError


async def _lease_of(
    session: AsyncSession, account: CreditAccount, holder_id: UUID
) -> CreditLease:
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
    return row


async def _others_hold(
    session: AsyncSession, account: CreditAccount, holder_id: UUID
) -> bool:
    other = select(CreditLease.id).where(
        CreditLease.user_id == account.id, CreditLease.holder_id != holder_id
    )
    return await session.scalar(other.limit(1)) is not None


async def locked(session: AsyncSession, limits: Limits, now: datetime) -> CreditAccount:
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


async def fill_up(session: AsyncSession, limits: Limits, *, note: str) -> None:
    """Raise the balance to what the limits give for a month, unless it is higher."""
    account = await locked(session, limits, utcnow())
    _fill(session, account, limits, note=note)
    account.warned_credits = account.warned_conversations = 0
    await session.flush()


def _fill(
    session: AsyncSession, account: CreditAccount, limits: Limits, **entry: str
) -> None:
    missing = (limits.monthly_credits or 0) - account.balance
    if missing > 0:
        _book(session, account, "grant", missing, **entry)


async def adjust(
    session: AsyncSession, limits: Limits, amount: int, *, note: str
) -> tuple[int, int]:
    """Add to a balance, or take from it; gives it as it was, and as it is.

    Raises ConflictError where less than that is there and not in use.
    """
    account = await locked(session, limits, utcnow())
    before = account.balance
    free = before - account.leased
    if free + amount < 0:
        rest = ": the rest is held for calls in progress" if account.leased else ""
        raise ConflictError(
            f"Only {free} of {before} credits are free to be taken{rest}.",
            code="credits_in_use",
        )
    _book(session, account, "adjustment", amount, note=note)
    if amount > 0:
        account.warned_credits = 0
    await session.flush()
    return before, account.balance


async def charge(
    session: AsyncSession, limits: Limits, amount: int, *, now: datetime
) -> int:
    """Take what a call cost that nothing was reserved for; gives what was there."""
    if limits.monthly_credits is None:
        return amount
    account = await locked(session, limits, now)
    charged = min(amount, account.balance - account.leased)
    if charged > 0:
        _book(session, account, "usage", -charged)
    left = Need(account.balance - account.leased)
    refused = charged < amount
    await warn(session, account, limits, short=Need(amount), left=left, refused=refused)
    await session.flush()
    return charged


async def reset_day(session: AsyncSession, limits: Limits) -> int:
    """Have a user's day begin anew; gives how many conversations were counted.

    What processes hold for it stays counted.
    """
    account = await locked(session, limits, utcnow())
    before = account.conversations
    held = await session.scalar(
        select(func.coalesce(func.sum(CreditLease.conversations), 0)).where(
            CreditLease.user_id == account.id, CreditLease.day == account.day
        )
    )
    account.conversations, account.warned_conversations = held or 0, 0
    await session.flush()
    return before


def _book(
    session: AsyncSession,
    account: CreditAccount,
    kind: str,
    amount: int,
    **more: str,
) -> None:
    account.balance += amount
    session.add(
        CreditEntry(id=uuid7(), user_id=account.id, kind=kind, amount=amount, **more)
    )
