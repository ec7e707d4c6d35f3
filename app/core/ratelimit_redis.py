"""Moving windows in Redis, for all processes of an installation (TRUST F6)."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import structlog
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.core.config import RedisSettings
from app.core.ratelimit import LocalLimiter, Standing
from app.core.rates import Rate

_TIMEOUT = 0.25  # seconds
_AWAY_SECONDS = 1.0  # for which it is not asked again when it has not
_HIT = """
local window = tonumber(ARGV[2]) * 1000000
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local oldest = tonumber(redis.call('LINDEX', KEYS[1], -1))
while oldest and oldest <= now - window do
    redis.call('RPOP', KEYS[1])
    oldest = tonumber(redis.call('LINDEX', KEYS[1], -1))
end
local most, count = tonumber(ARGV[1]), redis.call('LLEN', KEYS[1])
if count >= most then
    -- Where the limit has been lowered, more than one must go first.
    oldest = tonumber(redis.call('LINDEX', KEYS[1], most - 1))
    return {0, 0, oldest + window - now}
end
redis.call('LPUSH', KEYS[1], string.format('%.0f', now))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return {1, most - count - 1, (oldest or now) + window - now}
"""
"""A window is a list of microseconds, the newest first, by Redis's own clock. Gives
whether one more is allowed, how many then remain, and the microseconds of `reset`."""
_ADD = """
local sums = {}
for number, key in ipairs(KEYS) do
    local this, amount = key .. ':' .. ARGV[1], tonumber(ARGV[number + 1])
    if amount > 0 then
        redis.call('INCRBY', this, amount)
        redis.call('EXPIRE', this, 180)
    end
    sums[2 * number - 1] = tonumber(redis.call('GET', this) or 0)
    local before = key .. ':' .. string.format('%.0f', ARGV[1] - 1)
    sums[2 * number] = tonumber(redis.call('GET', before) or 0)
end
return sums
"""
"""Sums of a minute by key: gives each key's, and that of the minute before."""
_ADDED_AT_ONCE = 500
"""Redis does nothing else meanwhile."""
_log = structlog.get_logger()


class RedisLimiter:
    """While Redis is away, each process counts for itself.

    Where it does not answer, it is left alone for a second, and then one request tries
    it: so a Redis that hangs costs one request in a second a short wait.
    """

    def __init__(self, settings: RedisSettings, *, seconds: float = _TIMEOUT) -> None:
        """`seconds` that Redis may take to answer."""
        assert settings.url is not None
        self._seconds = seconds
        self._local = LocalLimiter()
        self._pool = ConnectionPool.from_url(
            settings.url.get_secret_value(),
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),
        )
        client = Redis(connection_pool=self._pool)
        self._hit, self._add = map(client.register_script, (_HIT, _ADD))
        self._retry_at = 0.0
        self.lost = False
        """Whether Redis did not answer when last asked."""

    async def hit(self, rate: Rate, key: str) -> Standing:
        names, limit = [f"workroom:rate:{key}"], [rate.amount, rate.seconds]
        told = await self._answer(partial(self._hit, keys=names, args=limit))
        if told is None:
            return await self._local.hit(rate, key)
        allowed, remaining, reset = told
        return Standing(bool(allowed), remaining, reset / 1e6)

    async def add(
        self, minute: int, amounts: Mapping[str, int]
    ) -> Mapping[str, tuple[int, int]]:
        keys = list(amounts)
        added: dict[str, tuple[int, int]] = {}
        for first in range(0, len(keys), _ADDED_AT_ONCE):
            some = keys[first : first + _ADDED_AT_ONCE]
            names = [f"workroom:minute:{key}" for key in some]
            told = [minute, *(amounts[key] for key in some)]
            sums = await self._answer(partial(self._add, keys=names, args=told))
            if sums is None:
                break
            added |= zip(some, zip(sums[::2], sums[1::2], strict=True), strict=True)
        return added

    async def close(self) -> None:
        await self._pool.aclose()

    async def _answer(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """What Redis says; None where it is away."""
        if self.lost:
            now = time.monotonic()
            if now < self._retry_at:
                return None
            self._retry_at = now + _AWAY_SECONDS  # the others do not wait for this one
        try:
            async with asyncio.timeout(self._seconds):
                told = await ask()
        except (RedisError, OSError, TimeoutError) as error:
            if not self.lost:
                _log.warning("redis is lost: rates count here", error=str(error))
            self.lost, self._retry_at = True, time.monotonic() + _AWAY_SECONDS
            return None
        if self.lost:
            _log.info("redis is back: rates count there")
            self.lost = False
        return told
