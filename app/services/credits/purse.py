"""What this process may spend for one user, and what calls put aside of it."""

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import AppError, RateLimitedError
from app.models import Limits
from app.services.credits import accounts
from app.services.credits.batches import Line
from app.services.credits.block import Block
from app.services.credits.keys import Budget, KeyUse
from app.services.credits.need import Need, Taken
from app.services.credits.pace import Pace, until_midnight
from app.services.credits.tally import NO_KEY, Used


class InsufficientCreditsError(AppError):
    status, code, title = 402, "insufficient_credits", "Not enough credits"

    def __init__(self) -> None:
        super().__init__(
            "Your credits do not suffice for this call: use a model or an answer that "
            "costs less, wait for the next month, or ask an administrator for more."
        )


class DailyLimitError(RateLimitedError):
    code = "daily_limit_reached"

    def __init__(self, now: datetime) -> None:
        super().__init__(
            "You have sent as many messages today as your plan allows; the next day "
            "begins at midnight UTC.",
            headers={"Retry-After": str(until_midnight(now))},
        )


class Call(NamedTuple):
    """What is paid for: `kind` is chat, title, gateway, memory and the like."""

    kind: str
    model: str
    key_id: UUID | None = None

    def by(self, user_id: UUID, day: date) -> Used:
        """What it counts as."""
        return Used(user_id, day, self.kind, self.model, self.key_id or NO_KEY)


@dataclass(slots=True, eq=False)
class Reservation:
    """Credits put aside for one call, until it is settled or cancelled."""

    purse: "Purse"
    call: Call
    used: Used
    """What it counts as: on the day that it began, whenever it ends."""
    amount: int
    """Of the purse; 0 for a call that costs nothing, or who has no limit."""
    most: int | None
    """What its user pays at most; None where nothing limits it."""
    use: KeyUse | None
    """Of the API key that the call came by, where one did."""
    budget: Budget | None
    """Of that key and day, which holds the most; None where it has no limit."""
    conversation: date | None = None
    open: bool = True

    def take(self, conversations: int) -> None:
        purse = self.purse
        purse.reserve(self.amount)
        if conversations:
            purse.conversations -= conversations
            self.conversation = purse.day
        if self.budget is not None:
            self.budget.reserve(self.most or 0)

    def goes_to(self, model: str) -> None:
        """It counts as this model's, which answers the call."""
        self.call = self.call._replace(model=model)
        self.used = self.used._replace(model=model)

    def close(self, *, charged: int) -> None:
        """Give back what the call did not take; of lost blocks that is not ours."""
        self.open = False
        if self.amount and not self.purse.lost:
            self.purse.give_back(self.amount, charged=charged)
        if self.budget is not None and not self.budget.lost:
            self.budget.give_back(self.most or 0, charged=charged)


@dataclass(slots=True, eq=False, kw_only=True)
class Purse(Block):
    """A user's lease.

    `spent` is since it was settled last, `noted` what of that the database knows.
    """

    limits: Limits
    settled_at: float
    noted: int = 0
    day: date | None = None
    conversations: int = 0
    noted_conversations: int = 0
    pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        self.pace = Pace("plan", self.limits.user_id)

    @property
    def id(self) -> UUID:
        return self.limits.user_id

    @property
    def spare(self) -> bool:
        return self.free > 0 or self.conversations > 0

    def begin_day(self, today: date) -> None:
        if self.day is None or self.day < today:
            self.day, self.conversations, self.refused = today, 0, None

    def short(self, need: Need) -> Need:
        """What is missing for it; nothing where it can be reserved."""
        return Need(
            max(need.credits - self.free, 0),
            max(need.conversations - self.conversations, 0),
        )

    def refuse(self, short: Need, *, clock: float, now: datetime) -> None:
        left = self.known_left(clock)
        if left is None:
            return
        if short.credits > left.credits:
            raise InsufficientCreditsError
        if short.conversations > left.conversations:
            raise DailyLimitError(now)

    async def lease(
        self, session: AsyncSession, holder_id: UUID, short: Need, now: datetime
    ) -> Taken:
        return await accounts.lease(
            session,
            self.limits,
            holder_id=holder_id,
            held=Need(self.free + self.reserved + self.spent, self.conversations),
            short=short,
            now=now,
        )

    def fill(self, taken: Taken) -> None:
        self.leased = True
        self.begin_day(taken.day)
        self.free += taken.got.credits
        if taken.day == self.day:  # else midnight has passed on the way
            self.conversations += taken.got.conversations
        self.noted_conversations = -1  # it may have gone on meanwhile: note it anew

    def line(self, *, settle: bool, close: bool) -> Line | None:
        """What is to be written of it; None where the database knows it all.

        What it gives up is gone from it at once, and cannot be reserved any more.
        """
        if not self.leased or self.filling is not None:
            return None
        if not settle and not close:
            noted = (self.noted, self.noted_conversations)
            if noted == (self.spent, self.conversations):
                return None
            self.writing = True
            return Line(self.limits.user_id, self.spent, self.conversations, self.day)
        returned = 0
        told = False
        if close:
            self.free = 0
            returned, self.conversations = self.conversations, 0
            told, self.recalled = self.recalled, False
        self.writing = True
        return Line(
            self.limits.user_id,
            self.spent,
            self.conversations,
            self.day,
            keep=self.free + self.reserved,
            returned=returned,
            closed=close and self.reserved == 0,
            told=told,
        )

    def written(self, line: Line, clock: float) -> None:
        self.writing = False
        self.noted, self.noted_conversations = line.spent, line.conversations
        if line.keep is not None:
            self.spent -= line.spent
            self.noted, self.settled_at = 0, clock
            self.leased = not line.closed
