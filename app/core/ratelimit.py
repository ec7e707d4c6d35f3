"""Moving windows that count who has asked how often, and sums of a minute.

A refused attempt does not count, so whoever waits as long as told is let in again.
"""

import time
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple, Protocol

from app.core.config import RedisSettings
from app.core.rates import Rate

_MOST_KEYS = 50_000
_MOST_STAMPS = 500_000
_SWEPT_AT_ONCE = 2


class Standing(NamedTuple):
    """How one stands after asking."""

    allowed: bool
    remaining: int
    reset: float
    """Seconds until one more is allowed, or until the first one counts no more."""


class Limiter(Protocol):
    async def hit(self, rate: Rate, key: str) -> Standing:
        """Count one for `key`, if the rate allows it; never fails."""

    async def add(
        self, minute: int, amounts: Mapping[str, int]
    ) -> Mapping[str, tuple[int, int]]:
        """Add to each key's sum of a minute, which is counted since the epoch.

        Gives what all processes have added in it, and in the one before. Gives nothing
        where nothing was added: nobody else is there, or they cannot be reached.
        """

    async def close(self) -> None: ...


class _Window:
    __slots__ = ("first", "seconds", "stamps")

    def __init__(self) -> None:
        self.seconds = 0
        self.stamps = array("d")  # eight bytes each, the oldest first
        self.first = 0
        """Where those begin that still count: moving them each time would cost more
        the more there are."""


class LocalLimiter:
    """In this process.

    The memory is bounded whoever asks: beyond so many keys or hits, the key that was
    used least recently is forgotten. To gain by that, one has to come from more
    addresses within a window than there are keys, each with its own right to be let in.
    """

    def __init__(
        self,
        *,
        keys: int = _MOST_KEYS,
        stamps: int = _MOST_STAMPS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._most_keys = keys
        self._most_stamps = stamps
        self._stamps = 0
        self._clock = clock

    @property
    def keys(self) -> int:
        return len(self._windows)

    @property
    def stamps(self) -> int:
        return self._stamps

    async def hit(self, rate: Rate, key: str) -> Standing:
        now = self._clock()
        window = self._windows.get(key)
        if window is None:
            self._sweep(now)
            window = self._windows[key] = _Window()
        else:
            self._windows.move_to_end(key)
        window.seconds = rate.seconds
        stamps = window.stamps
        first = window.first
        if first < len(stamps) and stamps[first] <= now - rate.seconds:
            first = bisect_right(stamps, now - rate.seconds, first)
            if 2 * first > len(stamps):
                del stamps[:first]
                self._stamps -= first
                first = 0
            window.first = first
        count = len(stamps) - first
        if count >= rate.amount:
            # Where the limit has been lowered, more than one must go first.
            oldest = stamps[len(stamps) - rate.amount]
            return Standing(False, 0, rate.seconds - (now - oldest))
        stamps.append(now)
        self._stamps += 1
        if self._stamps > self._most_stamps or len(self._windows) > self._most_keys:
            self._make_room()
        # In this order: added first, 60 seconds could come out as 60 and a bit.
        reset = rate.seconds - (now - stamps[first])
        return Standing(True, rate.amount - count - 1, reset)

    async def add(
        self, minute: int, amounts: Mapping[str, int]
    ) -> Mapping[str, tuple[int, int]]:
        """There is no other process."""
        del minute, amounts
        return {}

    async def close(self) -> None: ...

    def _make_room(self) -> None:
        while len(self._windows) > 1 and (
            self._stamps > self._most_stamps or len(self._windows) > self._most_keys
        ):
            self._forget_oldest()

    def _sweep(self, now: float) -> None:
        """Forget some of those that were used least recently and count no more."""
        for _ in range(_SWEPT_AT_ONCE):
            oldest = next(iter(self._windows.values()), None)
            if oldest is None or (
                oldest.stamps and oldest.stamps[-1] > now - oldest.seconds
            ):
                return
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, window = self._windows.popitem(last=False)
        self._stamps -= len(window.stamps)


def connect(settings: RedisSettings) -> Limiter:
    """The limiter of these settings; it connects when it is first asked."""
    if settings.url is None:
        return LocalLimiter()
    from app.core.ratelimit_redis import RedisLimiter  # noqa: PLC0415 - it loads Redis

    return RedisLimiter(settings)


@lru_cache(maxsize=4096)
def network(host: str) -> str:
    """What counts as one client: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        address = ip_address(host)
    except ValueError:
        return host[:100]
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"
