"""What users have used, and what is left to them."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.core.database import utcnow
from app.core.exceptions import FieldError, ValidationFailedError
from app.models import CreditAccount, CreditLease, Limits, UsageDay
from app.schemas.usage import (
    Allowance,
    CreditAllowance,
    UsageGroup,
    UsageLimits,
    UsageRead,
    UsageSummary,
)
from app.services.credits.tally import COUNTS, NO_KEY
from app.services.file.files import stored_bytes
from app.services.plan import limits_of

_DAYS = 30
_MOST_DAYS = 366
_MOST_ROWS = 10_000
_SHOWN = [name for name in COUNTS if name != "absorbed"]
_GROUPS: dict[UsageGroup, Any] = {
    "day": UsageDay.day,
    "kind": UsageDay.kind,
    "model": UsageDay.model,
    "key": UsageDay.key_id,
}


async def report(
    session: AsyncSession,
    user_id: UUID,
    *,
    first: date | None,
    last: date | None,
    group_by: Sequence[UsageGroup],
) -> UsageSummary:
    """Usage of these days, by default the last 30, and its sum.

    Raises ValidationFailedError for too many days, or none, and for groups that make
    too many rows.
    """
    last = last or utcnow().date()
    if first is None:  # the first days there are have no 30 before them
        first = date.fromordinal(max(last.toordinal() - _DAYS + 1, 1))
    if not 0 <= (last - first).days < _MOST_DAYS:
        message = f"must not be after `to`, nor more than {_MOST_DAYS - 1} days before"
        raise ValidationFailedError(
            f"`from` {message}.", errors=[FieldError(path="from", message=message)]
        )
    columns = [_GROUPS[name].label(name) for name in group_by]
    sums = [func.sum(getattr(UsageDay, name)).label(name) for name in _SHOWN]
    statement = (
        select(*columns, *sums)
        .where(UsageDay.user_id == user_id, UsageDay.day.between(first, last))
        .group_by(*columns)
        .order_by(*columns)
        .limit(_MOST_ROWS + 1)
    )
    items = [_read(row) for row in (await session.execute(statement)).mappings()]
    if len(items) > _MOST_ROWS:
        message = f"makes more than {_MOST_ROWS} rows: ask for less, or fewer days"
        raise ValidationFailedError(
            f"`group_by` {message}.",
            errors=[FieldError(path="group_by", message=message)],
        )
    total = {name: sum(getattr(item, name) for item in items) for name in _SHOWN}
    return UsageSummary(
        from_=first,
        to=last,
        items=[item for item in items if item.requests],
        total=UsageRead(**total),
    )


def _read(row: Any) -> UsageRead:
    # Without groups there is one row of sums, null where there is nothing.
    values = dict(row) | {name: int(row[name] or 0) for name in _SHOWN}
    if values.get("key") == NO_KEY:
        values["key"] = None
    return UsageRead(**values)


async def limits(session: AsyncSession, user_id: UUID) -> UsageLimits:
    """What the user may do, and how much of it is left."""
    allowed = await limits_of(session, user_id)
    sums = (
        _leased(CreditLease.spent),
        # What a process still holds of yesterday is nothing to today.
        _leased(CreditLease.conversations, CreditLease.day == CreditAccount.day),
    )
    found = await session.execute(
        select(CreditAccount, *sums).where(CreditAccount.id == user_id)
    )
    account, spent, unused = found.one_or_none() or (CreditAccount(balance=0), 0, 0)
    now = utcnow()
    return UsageLimits(
        plan=allowed.plan,
        conversations=_conversations(allowed, account, int(unused), now),
        credits=_credits(allowed, account, int(spent), now),
        requests_per_minute=allowed.requests_per_minute,
        tokens_per_minute=allowed.tokens_per_minute,
        storage_bytes=allowed.storage_bytes,
        storage_used=await stored_bytes(session, user_id),
        file_bytes=allowed.file_bytes,
        project_tokens=allowed.project_tokens,
        models=None if allowed.models is None else list(allowed.models),
    )


def _leased(column: InstrumentedAttribute[int], *which: ColumnElement[bool]) -> Any:
    return (
        select(func.coalesce(func.sum(column), 0))
        .where(CreditLease.user_id == CreditAccount.id, *which)
        .correlate(CreditAccount)
        .scalar_subquery()
    )


def _conversations(
    allowed: Limits, account: CreditAccount, unused: int, now: datetime
) -> Allowance:
    today = account.day == now.date()
    used = account.conversations - unused if today else 0
    most = allowed.daily_conversations
    return Allowance(
        limit=most,
        used=used,
        remaining=None if most is None else max(most - used, 0),
        resets_at=_midnight(now.date() + timedelta(days=1)),
    )


def _credits(
    allowed: Limits, account: CreditAccount, spent: int, now: datetime
) -> CreditAllowance:
    balance = account.balance - spent
    if account.period is None or account.period < f"{now:%Y-%m}":
        balance = max(balance, allowed.monthly_credits or 0)
    next_month = now.date().replace(day=1) + timedelta(days=32)
    return CreditAllowance(
        monthly=allowed.monthly_credits,
        balance=balance,
        resets_at=_midnight(next_month.replace(day=1)),
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)
