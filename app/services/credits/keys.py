"""What one API key may use, below what its user may."""

from dataclasses import dataclass, field
from datetime import date, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import RateLimitedError
from app.models import KeyLimits
from app.services.credits import budgets, pace
from app.services.credits.block import Block
from app.services.credits.budgets import KeyLine
from app.services.credits.need import Need, Taken
from app.services.credits.pace import Pace


class KeyLimitError(RateLimitedError):
    code = "key_limit_reached"

    def __init__(self, now: datetime) -> None:
        super().__init__(
            "This API key may spend no more today; the next day begins at midnight "
            "UTC.",
            headers={"Retry-After": str(pace.until_midnight(now))},
        )


@dataclass(slots=True, eq=False, kw_only=True)
class Budget(Block):
    """What this process may spend by a key on a day, the one that calls began on.

    `spent` is what the usage of that day does not hold yet, `noted` what the database
    has as leased, or -1 where that is not sure. Under a limit that is not `confirmed`
    it has leased nothing yet. While it is filled, what was spent is not written: else
    it would count twice, as used and as held.
    """

    key_id: UUID
    user_id: UUID
    day: date
    limit: int
    noted: int = 0
    confirmed: bool = True
    asked_under: int = 0
    """The limit when it was asked for more: it may be lowered before the answer."""

    @property
    def id(self) -> UUID:
        return self.key_id

    @property
    def spare(self) -> bool:
        return self.free > 0

    def set_limit(self, limit: int) -> None:
        """Under a lower one nothing is free until the database has said so."""
        if limit < self.limit:
            self.free, self.confirmed = 0, False
        self.limit, self.refused = limit, None

    async def lease(
        self, session: AsyncSession, holder_id: UUID, short: Need, now: datetime
    ) -> Taken:
        self.leased, self.noted = True, -1  # an answer may get lost
        self.asked_under = self.limit
        return await budgets.lease(
            session,
            budgets.Share(holder_id, self.key_id, self.day),
            user_id=self.user_id,
            limit=self.limit,
            held=self.free + self.reserved + self.spent,
            short=short.credits,
            now=now,
        )

    def fill(self, taken: Taken) -> None:
        if taken.got.credits and self.limit >= self.asked_under:
            self.free += taken.got.credits
            self.confirmed = True

    def give_back(self, reserved: int, *, charged: int) -> None:
        self.reserved -= reserved
        self.spent += charged
        if self.confirmed:
            self.free += reserved - charged

    def refuse(self, short: Need, *, clock: float, now: datetime) -> None:
        left = self.known_left(clock)
        if left is not None and short.credits > left.credits:
            raise KeyLimitError(now)

    def line(self, *, close: bool) -> KeyLine | None:
        """What is to be written of it; None where the database knows it all.

        It goes with the usage of the same batch, where what was spent is counted.
        """
        if not self.leased or self.filling is not None:
            return None
        if close:
            self.free = 0
        held = self.free + self.reserved
        if held == self.noted and not (close and held == 0):
            return None
        told, self.recalled = self.recalled, False
        self.writing, self.spent = True, 0
        closed = close and held == 0
        return KeyLine(self.key_id, self.day, held, closed=closed, told=told)

    def written(self, line: KeyLine) -> None:
        self.writing, self.noted = False, line.credits
        self.leased = not line.closed


@dataclass(slots=True, eq=False)
class KeyUse:
    """A key that is at work in this process: its pace, and its budgets by day."""

    used_at: float
    pace: Pace
    budgets: dict[date, Budget] = field(default_factory=dict)

    def budget(self, key: KeyLimits, user_id: UUID, day: date) -> Budget | None:
        """None where the key has no daily limit."""
        limit = key.daily_credit_limit
        if limit is None:
            return None
        budget = self.budgets.get(day)
        if budget is None:
            budget = self.budgets[day] = Budget(
                key_id=key.id,
                user_id=user_id,
                day=day,
                limit=limit,
                used_at=self.used_at,
            )
        if budget.limit != limit:
            budget.set_limit(limit)
        budget.used_at = self.used_at
        return budget
