"""Token buckets: what a deployment may be asked for in a minute."""

from collections.abc import Callable

_NOTHING = 1e-6
"""Seconds that are only a rounding error: who waited as long as told need not again."""


class Bucket:
    """Holds a minute's worth at most, and fills evenly; `clock` tells seconds.

    What asks for more than it ever holds is let through when it is full. What was not
    known before is taken afterwards, and may leave less than nothing.
    """

    __slots__ = ("_at", "_clock", "_level", "_size")

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._size = self._level = float(per_minute)
        self._at = clock()

    def wait(self, amount: float) -> float:
        """The seconds until it holds that much; 0 if it does."""
        self._fill()
        lacking = min(amount, self._size) - self._level
        seconds = lacking * 60 / self._size
        return seconds if seconds > _NOTHING else 0.0

    def take(self, amount: float) -> None:
        """Less than nothing is given back."""
        self._fill()
        self._level = min(self._level - amount, self._size)

    def _fill(self) -> None:
        now = self._clock()
        gained = (now - self._at) * self._size / 60
        self._level = min(self._level + gained, self._size)
        self._at = now


class Buckets:
    """A deployment's two; None sets no limit."""

    __slots__ = ("_requests", "_tokens")

    def __init__(
        self, requests: int | None, tokens: int | None, *, clock: Callable[[], float]
    ) -> None:
        self._requests = None if requests is None else Bucket(requests, clock)
        self._tokens = None if tokens is None else Bucket(tokens, clock)

    def wait(self, tokens: int) -> float:
        """The seconds until a call of so many tokens may be made; 0 if it may."""
        requests = self._requests.wait(1) if self._requests else 0.0
        return max(requests, self._tokens.wait(tokens) if self._tokens else 0.0)

    def take(self, tokens: int) -> None:
        """Count a call."""
        if self._requests:
            self._requests.take(1)
        self.take_tokens(tokens)

    def take_tokens(self, tokens: int) -> None:
        if self._tokens:
            self._tokens.take(tokens)
