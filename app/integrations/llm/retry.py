"""Calling a model again, in the one place that does.

Until the first token nothing of an answer has been seen or paid for, so that a call
which failed may be made again; after it, never: the text would come twice.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import structlog

from app.integrations.llm.base import (
    ChatRequest,
    ProviderError,
    ProviderEvent,
    ProviderTimeoutError,
    Usage,
)

log = structlog.get_logger(__name__)

BACKOFF_SECONDS = 0.5
"""The longest pause before the second try; it doubles with each further one."""

LONGEST_BACKOFF = 8.0

LONGEST_WAIT = 20.0
"""Where a provider asks for a longer pause, the caller is told instead."""


async def retrying(
    stream: Callable[[ChatRequest], AsyncIterator[ProviderEvent]],
    request: ChatRequest,
    *,
    retries: int,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    chance: Callable[[], float] = random.random,
) -> AsyncGenerator[ProviderEvent]:
    """The events of `stream(request)`, begun up to `retries` times more.

    A `Usage` before the first token is an estimate, and no reason against a retry. A
    timeout is one: whoever asked has waited long enough, and the provider may still be
    at work. Pauses have full jitter (a random part of the backoff), so that callers
    refused together do not come back together.
    """
    for attempt in range(retries + 1):
        begun = False
        try:
            async with aclosing(stream(request)) as events:  # type: ignore[type-var]  # every provider's stream is an async generator
                async for event in events:
                    begun = begun or type(event) is not Usage
                    yield event
                return
        except ProviderError as error:
            if begun or attempt == retries or not _worthwhile(error):
                raise
            pause = _pause(attempt, error, chance())
            log.info("provider_retried", code=error.code, attempt=attempt, pause=pause)
        await sleep(pause)


def _worthwhile(error: ProviderError) -> bool:
    return (
        error.retryable
        and not isinstance(error, ProviderTimeoutError)
        and (error.retry_after or 0) <= LONGEST_WAIT
    )


def _pause(attempt: int, error: ProviderError, chance: float) -> float:
    backoff: float = chance * min(BACKOFF_SECONDS * 2**attempt, LONGEST_BACKOFF)
    return max(backoff, error.retry_after or 0)
