"""A small cache for what the database said a moment ago."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Keeps at most `size` values, the least recently used go first.

    A value is good while it is younger than `ttl()` seconds, asked anew each time. None
    is no value.

    A value whose loading began before an invalidation is never kept: what was read
    then may be what the invalidation was about.
    """

    def __init__(self, *, size: int, ttl: Callable[[], float]) -> None:
        self._size = size
        self._ttl = ttl
        self._values: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._generation = 0

    async def get(self, key: K, load: Callable[[], Awaitable[V]]) -> V:
        """The kept value, or what `load` gives; an error of `load` is not kept."""
        kept = self.find(key)
        if kept is not None:
            return kept
        generation, begun = self._generation, time.monotonic()
        value = await load()
        if generation == self._generation:
            self._keep(key, begun, value)
        return value

    def keep(self, key: K, value: V) -> None:
        """A value that was read just now, where nothing is ever invalidated."""
        self._keep(key, time.monotonic(), value)

    def _keep(self, key: K, begun: float, value: V) -> None:
        self._values[key] = (begun, value)
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)

    def find(self, key: K) -> V | None:
        """The kept value, where there is a good one."""
        kept = self._values.get(key)
        if kept is None or time.monotonic() - kept[0] >= self._ttl():
            return None
        self._values.move_to_end(key)
        return kept[1]

    def drop(self, condition: Callable[[V], bool]) -> None:
        """Forget every value for which `condition` holds."""
        self._generation += 1
        gone = [k for k, (_, value) in self._values.items() if condition(value)]
        for key in gone:
            del self._values[key]
