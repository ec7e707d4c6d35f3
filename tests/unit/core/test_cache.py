import asyncio

import pytest

from app.core.cache import Cache


class Source:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.loads = 0

    async def load(self) -> int:
        self.loads += 1
        return self.loads


async def test_a_value_is_loaded_once() -> None:
    cache: Cache[str, int] = Cache(size=10, ttl=lambda: 60)
    source = Source()

    assert [await cache.get("a", source.load) for _ in range(3)] == [1, 1, 1]


async def test_a_value_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    cache: Cache[str, int] = Cache(size=10, ttl=lambda: 60)
    source = Source()
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)

    await cache.get("a", source.load)
    now += 59
    assert await cache.get("a", source.load) == 1
    now += 2
    assert await cache.get("a", source.load) == 2


async def test_the_least_recently_used_goes_first() -> None:
    cache: Cache[str, int] = Cache(size=2, ttl=lambda: 60)
    source = Source()
    await cache.get("a", source.load)
    await cache.get("b", source.load)
    await cache.get("a", source.load)
    await cache.get("c", source.load)

    assert await cache.get("a", source.load) == 1
    assert await cache.get("b", source.load) == 4


async def test_dropped_values_are_loaded_again() -> None:
    cache: Cache[str, int] = Cache(size=10, ttl=lambda: 60)
    source = Source()
    await cache.get("a", source.load)
    await cache.get("b", source.load)

    cache.drop(lambda value: value == 1)

    assert await cache.get("b", source.load) == 2
    assert await cache.get("a", source.load) == 3


async def test_what_was_read_before_an_invalidation_is_not_kept() -> None:
    cache: Cache[str, str] = Cache(size=10, ttl=lambda: 60)
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        reading.set()
        await go_on.wait()
        return "stale"

    async def fresh() -> str:
        return "fresh"

    asked = asyncio.create_task(cache.get("a", slow))
    await reading.wait()
    cache.drop(lambda _: True)
    go_on.set()

    assert await asked == "stale"
    assert await cache.get("a", fresh) == "fresh"


async def test_an_error_is_not_kept() -> None:
    cache: Cache[str, int] = Cache(size=10, ttl=lambda: 60)

    async def broken() -> int:
        raise LookupError

    with pytest.raises(LookupError):
        await cache.get("a", broken)
    assert await cache.get("a", Source().load) == 1
