"""Calls are made again before the first token, and never after it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from app.integrations.llm import retry
from app.integrations.llm.base import (
    ChatRequest,
    ProviderError,
    ProviderEvent,
    ProviderRejectedError,
    ProviderStreamBrokenError,
    ProviderThrottledError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RedactedThinking,
    Stop,
    TextDelta,
    ThinkingDelta,
    ToolUseStart,
    Usage,
)
from app.integrations.llm.http import retry_after
from tests.unit.integrations.llm.calls import Outcome, ask, outcome

GOOD = (Usage(1, 0), TextDelta("Yes"), Stop("end_turn"))
BUSY = ProviderThrottledError("busy")


@dataclass
class Upstream:
    """What each call in turn does: events, and an error where it ends with one."""

    calls: list[Sequence[ProviderEvent | ProviderError]]
    pauses: list[float] = field(default_factory=list)
    closed: int = 0

    async def stream(self, _request: ChatRequest) -> AsyncIterator[ProviderEvent]:
        try:
            for step in self.calls.pop(0):
                if isinstance(step, ProviderError):
                    raise step
                yield step
        finally:
            self.closed += 1

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def run(self, *, retries: int = 2, chance: float = 1.0) -> Outcome:
        events = retry.retrying(
            self.stream,
            ask("m"),
            retries=retries,
            sleep=self.sleep,
            chance=lambda: chance,
        )
        return await outcome(events)


async def test_a_refused_call_is_made_again() -> None:
    upstream = Upstream([[BUSY], [ProviderUnavailableError("away")], GOOD])

    result = await upstream.run()

    assert result.error is None
    assert result.events == list(GOOD)
    assert upstream.pauses == [0.5, 1.0]
    assert upstream.closed == 3


async def test_an_early_estimate_is_no_token() -> None:
    broken = ProviderStreamBrokenError("cut")
    upstream = Upstream([[Usage(9, 0, estimated=True), broken], GOOD])

    assert (await upstream.run()).error is None


@pytest.mark.parametrize(
    "token",
    [
        TextDelta("Y"),
        ThinkingDelta("Hm"),
        RedactedThinking("x"),
        ToolUseStart("1", "clock"),
    ],
)
async def test_after_a_token_there_is_no_second_try(token: ProviderEvent) -> None:
    upstream = Upstream([[Usage(1, 0), token, BUSY], GOOD])

    result = await upstream.run()

    assert result.error is BUSY
    assert result.events == [Usage(1, 0), token]
    assert upstream.pauses == []


@pytest.mark.parametrize(
    "error", [ProviderRejectedError("no"), ProviderTimeoutError("stalled")]
)
async def test_what_a_retry_would_not_mend_is_told_at_once(
    error: ProviderError,
) -> None:
    assert (await Upstream([[error], GOOD]).run()).error is error


@pytest.mark.parametrize("retries", [0, 1, 2])
async def test_the_last_error_is_told_when_the_tries_are_used_up(retries: int) -> None:
    upstream = Upstream([[BUSY]] * 9)

    assert (await upstream.run(retries=retries)).error is BUSY
    assert upstream.closed == retries + 1


async def test_pauses_double_up_to_a_bound_and_have_full_jitter() -> None:
    upstream = Upstream([[BUSY]] * 9)

    await upstream.run(retries=7, chance=0.5)

    assert upstream.pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


async def test_what_the_provider_asks_for_is_waited_at_least() -> None:
    asked = ProviderThrottledError("busy", retry_after=3)
    upstream = Upstream([[asked], GOOD])

    await upstream.run(chance=0)

    assert upstream.pauses == [3]


async def test_a_pause_that_is_too_long_is_told_instead() -> None:
    asked = ProviderThrottledError("busy", retry_after=60)

    result = await Upstream([[asked], GOOD]).run()

    assert result.error is asked
    assert asked.headers == {"Retry-After": "60"}


async def test_a_pause_ends_at_once_with_its_task() -> None:
    upstream = Upstream([[BUSY], GOOD])
    paused = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        paused.set()
        await asyncio.Event().wait()

    events = retry.retrying(upstream.stream, ask("m"), retries=1, sleep=sleep)
    task = asyncio.create_task(outcome(events))
    await paused.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers) == seconds
