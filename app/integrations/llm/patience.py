"""Answers that must begin in time."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from app.integrations.llm.base import ProviderTimeoutError

T = TypeVar("T")


async def in_time(
    items: AsyncGenerator[T], seconds: float, who: str, *, begun: Callable[[T], bool]
) -> AsyncGenerator[T]:
    """The items; raises ProviderTimeoutError where none of them has `begun` by then."""
    deadline = asyncio.get_running_loop().time() + seconds
    async with aclosing(items):
        waiting = True
        while waiting:
            try:
                async with asyncio.timeout_at(deadline):
                    item = await anext(items)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise _too_late(who, seconds) from error
            waiting = not begun(item)
            yield item
        async for item in items:
            yield item


async def whole_in_time(answer: Awaitable[T], seconds: float, who: str) -> T:
    """The same for an answer that comes as a whole."""
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError as error:
        raise _too_late(who, seconds) from error


def _too_late(who: str, seconds: float) -> ProviderTimeoutError:
    return ProviderTimeoutError(
        f"{who} did not begin to answer within {seconds:g} seconds."
    )
