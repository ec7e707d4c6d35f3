"""F7."""

import asyncio
import time

from app.core.lag import LoopLag


def test_only_a_lag_that_lasts_is_too_long() -> None:
    lag = LoopLag(0.25)

    seen = []
    for late in (9.0, 9.0, 9.0, 0.0, 9.0, 9.0, 9.0, 0.3, 0.2):
        lag.note(late)
        seen.append(lag.too_long)

    assert seen == [False] * 7 + [True, False]


async def test_it_sees_that_the_loop_is_kept_busy() -> None:
    lag = LoopLag(0.001)
    lag.open()
    try:
        async with asyncio.timeout(30):
            while not lag.too_long:
                time.sleep(0.05)  # noqa: ASYNC251 - this is the overload
                await asyncio.sleep(0)
    finally:
        await lag.close()
