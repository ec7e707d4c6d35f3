"""Moving windows in Redis, for all processes of an installation (TRUST F6)."""

import asyncio
import time

import structlog
from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage.redis import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.core.config import RedisSettings
from app.core.ratelimit import LocalLimiter, Standing
from app.core.rates import Rate

_TIMEOUT = 0.25  # seconds
_AWAY_SECONDS = 1.0  # for which it is not asked again when it has not
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
        storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix="workroom:rate",
            connection_pool=self._pool,  # type: ignore[arg-type]  # its hints leave this one out
        )
        self._strategy = MovingWindowRateLimiter(storage)
        self._items: dict[Rate, RateLimitItem] = {}
        self._retry_at = 0.0
        self.lost = False
        """Whether Redis did not answer when last asked."""

    async def hit(self, rate: Rate, key: str) -> Standing:
        if self.lost:
            now = time.monotonic()
            if now < self._retry_at:
                return await self._local.hit(rate, key)
            self._retry_at = now + _AWAY_SECONDS  # the others do not wait for this one
        try:
            async with asyncio.timeout(self._seconds):
                standing = await self._ask(rate, key)
        except (RedisError, OSError, TimeoutError) as error:
            if not self.lost:
                _log.warning("redis is lost: rates count here", error=str(error))
            self.lost, self._retry_at = True, time.monotonic() + _AWAY_SECONDS
            return await self._local.hit(rate, key)
        if self.lost:
            _log.info("redis is back: rates count there")
            self.lost = False
        return standing

    async def close(self) -> None:
        await self._pool.aclose()

    async def _ask(self, rate: Rate, key: str) -> Standing:
        item = self._items.get(rate)
        if item is None:
            item = RateLimitItemPerSecond(rate.amount, rate.seconds)
            self._items[rate] = item
        allowed = await self._strategy.hit(item, key)
        stats = await self._strategy.get_window_stats(item, key)
        remaining = stats.remaining if allowed else 0
        return Standing(allowed, remaining, stats.reset_time - time.time())
