"""How much a plan, or an API key, allows in a minute; and how long a day still is."""

import math
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from functools import lru_cache
from typing import Literal
from uuid import UUID

from app.core.exceptions import RateLimitedError
from app.core.ratelimit import Limiter
from app.core.rates import Rate
from app.models import KeyLimits, Limits

_SECONDS = 60


@dataclass(slots=True)
class Minute:
    """Tokens of the last minute.

    Two buckets tell it: this minute's, and the part of the last one that still counts.
    `tokens` and `before` are of all processes, as far as is known: the others' are as
    they were at the last `hear`. `untold` is what they do not know of yet.
    """

    minute: int = 0
    tokens: int = 0
    before: int = 0
    untold: int = 0

    def used(self, seconds: float) -> float:
        minute, past = divmod(seconds, _SECONDS)
        if minute != self.minute:
            self.before = self.tokens if minute == self.minute + 1 else 0
            self.minute, self.tokens = int(minute), 0
            self.untold = min(self.untold, self.before)  # what is older counts no more
        return self.before * (1 - past / _SECONDS) + self.tokens

    def add(self, tokens: int, seconds: float) -> None:
        if seconds // _SECONDS != self.minute:
            self.used(seconds)
        self.tokens += tokens
        self.untold += tokens

    def hear(self, minute: int, told: int, sums: tuple[int, int]) -> None:
        """What all used in that minute and in the one before, with `told` of ours."""
        self.untold = max(self.untold - told, 0)
        if minute == self.minute:
            tokens, self.before = sums
            self.tokens = tokens + self.untold


class Pace:
    """Of one user's calls, or of those by one API key."""

    __slots__ = ("_of", "limited", "minute", "name")

    def __init__(self, of: Literal["plan", "key"], whose: UUID) -> None:
        self._of = of
        self.name = f"{of}:{whose}"
        self.minute = Minute()
        self.limited = False
        """Whether tokens were limited when it was asked last."""

    async def keep(
        self, limits: Limits | KeyLimits, limiter: Limiter, *, seconds: float
    ) -> None:
        """Count a request; raises RateLimitedError for one more than they allow.

        Of tokens, those of calls that have ended count: what a call will need, nobody
        knows.
        """
        most = limits.tokens_per_minute
        self.limited = most is not None
        if most is not None and self.minute.used(seconds) >= most:
            raise _too_fast(self._of, f"{most} tokens", _SECONDS - seconds % _SECONDS)
        if limits.requests_per_minute is not None:
            rate = _a_minute(limits.requests_per_minute)
            standing = await limiter.hit(rate, self.name)
            if not standing.allowed:
                raise _too_fast(self._of, f"{rate.amount} requests", standing.reset)


def minute_of(seconds: float) -> int:
    return int(seconds // _SECONDS)


def until_midnight(now: datetime) -> int:
    """Seconds, at least one."""
    midnight = datetime.combine(
        now.date() + timedelta(days=1), time(), tzinfo=now.tzinfo
    )
    return max(math.ceil((midnight - now).total_seconds()), 1)


@lru_cache
def _a_minute(amount: int) -> Rate:
    return Rate(amount, _SECONDS)


def _too_fast(of: str, what: str, seconds: float) -> RateLimitedError:
    wait = max(1, math.ceil(seconds))
    return RateLimitedError(
        f"Your {of} allows {what} a minute: try again in {wait} s.",
        headers={"Retry-After": str(wait)},
    )
