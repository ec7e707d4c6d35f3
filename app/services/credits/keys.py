"""What one API key may use, below what its user may."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from app.core.exceptions import ForbiddenError, RateLimitedError
from app.core.ratelimit import Limiter
from app.models import KeyLimits
from app.services.credits import pace
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
    """The keys with limits that are at work in this process."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._uses: dict[UUID, KeyUse] = {}

    async def hold(
        self,
        key: KeyLimits,
        model: str,
        amount: int,
        *,
        spent: Callable[[], Awaitable[int]],
        now: datetime,
    ) -> Hold:
        """Count a call that costs at most `amount`; `spent` tells the key's day so far.

        Raises ForbiddenError for a model that the key leaves out, and RateLimitedError
        beyond its pace or what it may spend today. What costs nothing may always be.
        """
        if not key.allows(model):
            raise ForbiddenError(
                f"This API key does not include the model {model}.",
                code="model_not_allowed",
            )
        use = self._uses.setdefault(key.id, KeyUse())
        use.used_at = time.monotonic()
        await pace.keep(
            key, use.minute, self._limiter, of="key", seconds=now.timestamp()
        )
        if key.daily_credit_limit is None or amount == 0:
            return Hold(use, 0)
        # Nothing is awaited between the sum and what is held for this call.
        if await spent() + use.held + amount > key.daily_credit_limit:
            raise KeyLimitError(now)
        use.held += amount
        return Hold(use, amount)

    def forget_idle(self) -> None:
        before = time.monotonic() - _FORGET_SECONDS
        for key_id, use in tuple(self._uses.items()):
            if use.held == 0 and use.used_at < before:
                del self._uses[key_id]
