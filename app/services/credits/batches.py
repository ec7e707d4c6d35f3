"""What a process has spent, written for many users in a few statements."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    bindparam,
    case,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.statements import Script, Statement, play
from app.models import (
    CreditAccount,
    CreditEntry,
    CreditHolder,
    CreditLease,
    KeyLease,
    Limits,
)
from app.services.credits import accounts, budgets
from app.services.credits.accounts import INSERTS, HolderLostError
from app.services.credits.budgets import KeyLine
from app.services.credits.tally import Tally, counting

_REMEMBERED = timedelta(days=30)
"""How long it is known what a process has written whose leases were taken back."""


@dataclass(frozen=True, slots=True)
class Line:
    """A user's lease as its process has it.

    `spent` is since the lease was settled last. Where `keep` is not None it is settled
    now, and goes on with so many credits; `returned` conversations go back. A `closed`
    one is given up; of one that is `told`, somebody asked for what is free.
    """

    user_id: UUID
    spent: int
    conversations: int
    day: date | None
    keep: int | None = None
    returned: int = 0
    closed: bool = False
    told: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """`late` are costs of calls whose lease was lost meanwhile."""

    sequence: int
    lines: Sequence[Line]
    keys: Sequence[KeyLine]
    tally: Tally
    late: Sequence[tuple[Limits, int]] = ()

    @property
    def changes_accounts(self) -> bool:
        return bool(self.late) or any(line.keep is not None for line in self.lines)


async def begin(
    session: AsyncSession, holder_id: UUID, *, expires_at: datetime
) -> None:
    """Make this process one that may lease."""
    insert_ = INSERTS[session.get_bind().dialect.name](CreditHolder)
    await session.execute(
        insert_.values(
            id=holder_id, sequence=0, expires_at=expires_at
        ).on_conflict_do_nothing()
    )


async def write(
    session: AsyncSession,
    holder_id: UUID,
    batch: Batch,
    *,
    now: datetime,
    expires_at: datetime,
) -> None:
    """Write a batch and renew the holder; one that is written already is left alone.

    Raises HolderLostError.
    """
    if not await play(session, _renewing(holder_id, batch, expires_at)):
        return
    await _settle(
        session, holder_id, [line for line in batch.lines if line.keep is not None], now
    )
    for limits, amount in batch.late:
        await accounts.charge(session, limits, amount, now=now)
    await play(session, _adding(holder_id, batch))


def writing(holder_id: UUID, batch: Batch, *, expires_at: datetime) -> Script[None]:
    """The same for a batch that changes no account, as most do."""
    if (yield from _renewing(holder_id, batch, expires_at)):
        yield from _adding(holder_id, batch)


def _renewing(holder_id: UUID, batch: Batch, expires_at: datetime) -> Script[bool]:
    """Renew the holder and note what leases have spent; False where that was done."""
    renewed = yield _RENEW(
        holder=holder_id,
        before=batch.sequence - 1,
        now=batch.sequence,
        until=expires_at,
    )
    if renewed.rowcount == 0:
        found = (yield _WRITTEN(holder=holder_id, sequence=batch.sequence)).rows
        if not found or found[0]["taken_back_at"] is not None:
            raise HolderLostError(written=bool(found))
        return False
    if notes := [line for line in batch.lines if line.keep is None]:
        yield _NOTE.each(
            [
                {
                    "holder": holder_id,
                    "user": line.user_id,
                    "new_spent": line.spent,
                    "new_conversations": line.conversations,
                }
                for line in notes
            ]
        )
    return True


def _adding(holder_id: UUID, batch: Batch) -> Script[None]:
    yield from counting(batch.tally)
    yield from budgets.holding(holder_id, batch.keys)


async def _settle(
    session: AsyncSession, holder_id: UUID, lines: Sequence[Line], now: datetime
) -> None:
    if not lines:
        return
    users = [line.user_id for line in lines]
    mine = (CreditLease.holder_id == holder_id, CreditLease.user_id.in_(users))
    found = await session.execute(
        select(CreditLease.user_id, CreditLease.credits).where(*mine)
    )
    held = {row.user_id: row.credits for row in found}
    kept = [line for line in lines if line.user_id in held]  # not of erased users
    await _book(
        session,
        [
            _Change(
                line.user_id,
                line.spent,
                held[line.user_id] - (line.keep or 0),
                line.returned,
                line.day,
            )
            for line in kept
        ],
        now,
    )
    if closed := [line.user_id for line in kept if line.closed]:
        await session.execute(
            delete(CreditLease).where(
                CreditLease.holder_id == holder_id, CreditLease.user_id.in_(closed)
            )
        )
    if going_on := [line for line in kept if not line.closed]:
        await _many(
            session,
            _GO_ON,
            [
                {
                    "holder": holder_id,
                    "user": line.user_id,
                    "new_credits": line.keep,
                    "new_conversations": line.conversations,
                }
                for line in going_on
            ],
        )


class _Change(NamedTuple):
    """What a settlement changes of an account."""

    user_id: UUID
    spent: int
    given_back: int
    """What of the account is leased no more; the spent is among it."""
    conversations: int
    day: date | None


async def _book(
    session: AsyncSession, changes: Iterable[_Change], now: datetime
) -> None:
    """Enter what was spent; all sides take the accounts' locks in the same order."""
    ordered = sorted(changes, key=lambda change: change.user_id)
    if not ordered:
        return
    await _many(
        session,
        _GIVE_BACK,
        [
            {
                "user": change.user_id,
                "spent": change.spent,
                "given_back": change.given_back,
                "returned": change.conversations,
                "of_day": change.day,
            }
            for change in ordered
        ],
    )
    entries = [
        {
            "id": uuid7(),
            "user_id": change.user_id,
            "kind": "usage",
            "amount": -change.spent,
            "created_at": now,
        }
        for change in ordered
        if change.spent
    ]
    if entries:
        await session.execute(insert(CreditEntry), entries)


async def take_back(
    session: AsyncSession, which: ColumnElement[bool], *, now: datetime
) -> int:
    """Settle and close what such holders have; gives how many these were."""
    alive = CreditHolder.taken_back_at.is_(None)
    dead = (
        await session.scalars(
            select(CreditHolder.id)
            .where(which, alive)
            .with_for_update(skip_locked=True)
        )
    ).all()
    if not dead:
        return 0
    leases = (
        await session.scalars(
            select(CreditLease).where(CreditLease.holder_id.in_(dead))
        )
    ).all()
    await _book(
        session,
        [
            _Change(row.user_id, row.spent, row.credits, row.conversations, row.day)
            for row in leases
        ],
        now,
    )
    await session.execute(delete(CreditLease).where(CreditLease.holder_id.in_(dead)))
    await session.execute(delete(KeyLease).where(KeyLease.holder_id.in_(dead)))
    await session.execute(
        update(CreditHolder)
        .where(CreditHolder.id.in_(dead))
        .values(taken_back_at=now)
        .execution_options(synchronize_session=False)
    )
    await session.execute(
        delete(CreditHolder).where(CreditHolder.taken_back_at < now - _REMEMBERED)
    )
    return len(dead)


_HOLDERS: Any = CreditHolder.__table__
_RENEW = Statement(
    update(_HOLDERS)
    .where(
        _HOLDERS.c.id == bindparam("holder"),
        _HOLDERS.c.sequence == bindparam("before"),
        _HOLDERS.c.taken_back_at.is_(None),
    )
    .values(sequence=bindparam("now"), expires_at=bindparam("until"))
)
_WRITTEN = Statement(
    select(_HOLDERS.c.taken_back_at).where(
        _HOLDERS.c.id == bindparam("holder"),
        _HOLDERS.c.sequence == bindparam("sequence"),
    )
)


async def _many(session: AsyncSession, statement: Any, rows: list[Any]) -> None:
    """On the connection: of so many rows, the session would make objects."""
    await (await session.connection()).execute(statement, rows)


_LEASES: Any = CreditLease.__table__
_ACCOUNTS: Any = CreditAccount.__table__
_OURS = (
    _LEASES.c.holder_id == bindparam("holder"),
    _LEASES.c.user_id == bindparam("user"),
)
_NOTE = Statement(
    update(_LEASES)
    .where(*_OURS)
    .values(spent=bindparam("new_spent"), conversations=bindparam("new_conversations"))
)
_GO_ON = (
    update(_LEASES)
    .where(*_OURS)
    .values(
        spent=0,
        credits=bindparam("new_credits"),
        conversations=bindparam("new_conversations"),
    )
)
_GIVE_BACK = (
    update(_ACCOUNTS)
    .where(_ACCOUNTS.c.id == bindparam("user"))
    .values(
        balance=_ACCOUNTS.c.balance - bindparam("spent"),
        leased=_ACCOUNTS.c.leased - bindparam("given_back"),
        conversations=_ACCOUNTS.c.conversations
        - case(
            (_ACCOUNTS.c.day == bindparam("of_day"), bindparam("returned")), else_=0
        ),
    )
)
