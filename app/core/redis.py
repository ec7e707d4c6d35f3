"""Redis, where it is configured. So far it is only watched."""

from app.core.config import RedisSettings


async def ping(settings: RedisSettings) -> str:
    """Say "ok", or what is wrong. Redis is loaded only where it is used."""
    from redis.asyncio import Redis  # noqa: PLC0415 - see above
    from redis.exceptions import RedisError  # noqa: PLC0415 - see above

    assert settings.url is not None
    client = Redis.from_url(settings.url.get_secret_value(), socket_timeout=2)
    try:
        await client.ping()
    except (RedisError, OSError) as error:
        return f"REDIS_URL does not answer ({type(error).__name__})"
    finally:
        await client.aclose()
    return "ok"
