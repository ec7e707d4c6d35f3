"""What one API key may use, below what its user may."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from app.core.exceptions import ForbiddenError, RateLimitedError
from app.core.ratelimit import Limiter
from app.models import KeyLimits
from app.services.credits import pace
from app.services.credits.batches import Used
from app.services.credits.pace import Minute

_FORGET_SECONDS = 120


class KeyLimitError(RateLimitedError):
    code = "key_limit_reached"

    def __init__(self, now: datetime) -> None:
        super().__init__(
            "This API key may spend no more today; the next day begins at midnight "
            "UTC.",
            headers={"Retry-After": str(pace.until_midnight(now))},
        )


@dataclass(slots=True)
class KeyUse:
    """What calls by a key hold in this process, and the tokens of its last minute."""

    used_at: float = 0
    held: int = 0
    minute: Minute = field(default_factory=Minute)


@dataclass(slots=True)
class Hold:
    """Of one call, until it ends."""

    use: KeyUse
    amount: int

    def give_back(self) -> None:
        self.use.held -= self.amount
        self.amount = 0


class Keys:
    """The keys that are at work in this process.

    `spent` tells the credits that a key has spent on a day, and is asked for them as
    `Used`, whatever the model.

    What calls in other processes hold, and what those have not written yet, is not
    known here: n processes at once can spend n times a key's daily limit, at worst.
    """

    def __init__(
        self, limiter: Limiter, spent: Callable[[Used], Awaitable[int]]
    ) -> None:
        self._limiter = limiter
        self._spent = spent
        self._uses: dict[UUID, KeyUse] = {}

    @asynccontextmanager
    async def holding(
        self, key: KeyLimits, used: Used, amount: int, *, now: datetime
    ) -> AsyncIterator[Hold]:
        """Count a call that costs at most `amount`; where the block fails, undo it.

        Raises ForbiddenError for a model that the key leaves out, and RateLimitedError
        beyond its pace or what it may spend today. What costs nothing may always be.
        """
        if not key.allows(used.model):
            raise ForbiddenError(
                f"This API key does not include the model {used.model}.",
                code="model_not_allowed",
            )
        use = self._uses.setdefault(key.id, KeyUse())
        use.used_at = time.monotonic()
        await pace.keep(key, use.minute, self._limiter, seconds=now.timestamp())
        hold = Hold(use, 0)
        if key.daily_credit_limit is not None and amount > 0:
            # Nothing is awaited between the sum and what is held for this call.
            if await self._spent(used) + use.held + amount > key.daily_credit_limit:
                raise KeyLimitError(now)
            use.held += amount
            hold.amount = amount
        with ExitStack() as undo:
            undo.callback(hold.give_back)
            yield hold
            undo.pop_all()

    def forget_idle(self) -> None:
        before = time.monotonic() - _FORGET_SECONDS
        for key_id, use in tuple(self._uses.items()):
            if use.held == 0 and use.used_at < before:
                del self._uses[key_id]
