"""What this process may spend for one user without asking the database."""

from asyncio import Event, Task, timeout
from dataclasses import dataclass, field
from datetime import date, datetime
from uuid import UUID

from app.core.exceptions import AppError, RateLimitedError
from app.models import Limits
from app.services.credits.batches import NO_KEY, Line, Used
from app.services.credits.keys import Hold
from app.services.credits.need import Need
from app.services.credits.pace import Minute, until_midnight

_REFUSED_SECONDS = 1
"""How long a refusal of the database stands for those who ask next."""


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


@dataclass(frozen=True, slots=True)
class Call:
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
    amount: int
    """Of the lease; 0 for a call that costs nothing, or who has no limit."""
    unlimited: bool
    conversation: date | None = None
    open: bool = True
    hold: Hold | None = None
    """Of the API key that the call came by, where one did."""

    def close(self, tokens: int = 0, seconds: float = 0) -> None:
        """It took so many tokens; nobody settles or cancels it any more."""
        self.open = False
        if self.hold is not None:
            self.hold.give_back()
            if tokens:
                self.hold.use.minute.add(tokens, seconds)


@dataclass(slots=True, eq=False)
class Purse:
    """A user's lease: `free`, `reserved` and `spent` are what it holds.

    `spent` is since it was settled last, `noted` what of that the database knows.
    While it is filled or written, the other waits. A `lost` one has been taken back.
    """

    limits: Limits
    used_at: float
    settled_at: float
    free: int = 0
    reserved: int = 0
    spent: int = 0
    noted: int = 0
    day: date | None = None
    conversations: int = 0
    noted_conversations: int = 0
    leased: bool = False
    lost: bool = False
    recalled: bool = False
    writing: bool = False
    filling: Task[None] | None = None
    refused: tuple[float, Need] | None = None
    changed: Event = field(default_factory=Event)
    minute: Minute = field(default_factory=Minute)

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
        """Raise where the database has just said that there is less than that."""
        if self.refused is None or clock > self.refused[0]:
            return
        left = self.refused[1]
        if short.credits > left.credits:
            raise InsufficientCreditsError
        if short.conversations > left.conversations:
            raise DailyLimitError(now)

    def fill(self, got: Need, day: date) -> None:
        self.leased = True
        self.begin_day(day)
        self.free += got.credits
        if day == self.day:  # else midnight has passed on the way
            self.conversations += got.conversations
        self.noted_conversations = -1  # it may have gone on meanwhile: note it anew

    async def has_changed(self, seconds: float) -> bool:
        """Wait so long for others to give something back."""
        if seconds <= 0:
            return False
        try:
            async with timeout(seconds):
                await self.changed.wait()
        except TimeoutError:
            return False
        self.changed.clear()
        return True

    def was_refused(self, left: Need, clock: float) -> None:
        self.refused = (clock + _REFUSED_SECONDS, left)

    def take(self, call: Call, need: Need) -> Reservation:
        self.free -= need.credits
        self.reserved += need.credits
        self.conversations -= need.conversations
        return Reservation(
            purse=self,
            call=call,
            amount=need.credits,
            unlimited=self.limits.monthly_credits is None,
            conversation=self.day if need.conversations else None,
        )

    def give_back(self, reservation: Reservation, *, charged: int) -> None:
        self.reserved -= reservation.amount
        self.spent += charged
        self.free += reservation.amount - charged

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
        if close:
            self.free = 0
            returned, self.conversations = self.conversations, 0
        self.writing = True
        return Line(
            self.limits.user_id,
            self.spent,
            self.conversations,
            self.day,
            keep=self.free + self.reserved,
            returned=returned,
            closed=close and self.reserved == 0,
        )

    def written(self, line: Line, clock: float) -> None:
        self.writing = False
        self.noted, self.noted_conversations = line.spent, line.conversations
        if line.keep is not None:
            self.spent -= line.spent
            self.noted, self.settled_at = 0, clock
            self.leased = not line.closed
