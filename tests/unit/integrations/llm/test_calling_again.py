"""Calls are made again before the first token, and never after it."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from app.core.metrics import pass_on
from app.integrations.llm.base import (
    ProviderAuthError,
    ProviderError,
    ProviderEvent,
    ProviderNotConfiguredError,
    ProviderRejectedError,
    ProviderStreamBrokenError,
    ProviderThrottledError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RedactedThinking,
    TextDelta,
    ThinkingDelta,
    ToolUseStart,
    Usage,
)
from app.integrations.llm.routes import Deployment, Route
from app.integrations.llm.routing import Router
from tests.unit.integrations.llm.house import (
    AWAY,
    BUSY,
    GOOD,
    A,
    B,
    Build,
    C,
    Silence,
    route,
)


class TestTheOnlyOne:
    """What stands for one model is called again, after pauses."""

    async def test_a_refused_call_is_made_again(self, build: Build) -> None:
        house = build()
        house.plan(a=[[BUSY], [AWAY], GOOD])

        result = await house.run()

        assert result.error is None
        assert result.events == list(GOOD)
        assert house.clock.pauses == [0.5, 1.0]
        assert house.provider.closed == 3

    @pytest.mark.parametrize("retries", [0, 1, 2])
    async def test_the_last_error_is_told_when_the_tries_are_used_up(
        self, build: Build, retries: int
    ) -> None:
        house = build(retries=retries)
        house.plan(a=[[BUSY]] * 9)

        assert (await house.run()).error is BUSY
        assert house.provider.closed == retries + 1

    async def test_pauses_double_up_to_a_bound_and_have_full_jitter(
        self, build: Build
    ) -> None:
        house = build(retries=7, chance=lambda: 0.5)
        house.plan(a=[[BUSY]] * 9)

        await house.run()

        assert house.clock.pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]

    async def test_what_the_provider_asks_for_is_waited_at_least(
        self, build: Build
    ) -> None:
        house = build(chance=lambda: 0.0)
        house.plan(a=[[ProviderThrottledError("busy", retry_after=3)], GOOD])

        assert (await house.run()).error is None
        assert house.clock.pauses == [3]

    async def test_a_pause_that_is_too_long_is_told_instead(self, build: Build) -> None:
        asked = ProviderThrottledError("busy", retry_after=60)
        house = build()
        house.plan(a=[[asked]])

        assert (await house.run()).error is asked
        assert asked.headers == {"Retry-After": "60"}

    @pytest.mark.parametrize(
        "error",
        [
            ProviderRejectedError("no"),
            ProviderTimeoutError("stalled"),
            ProviderAuthError("who?"),
        ],
    )
    async def test_what_a_retry_would_not_mend_is_told_at_once(
        self, build: Build, error: ProviderError
    ) -> None:
        house = build()
        house.plan(a=[[error]])

        assert (await house.run()).error is error
        assert house.clock.pauses == []

    async def test_a_pause_ends_at_once_with_its_task(self, build: Build) -> None:
        house = build()
        house.plan(a=[[BUSY], GOOD])
        paused = asyncio.Event()

        async def sleep(_seconds: float) -> None:
            paused.set()
            await asyncio.Event().wait()

        router = Router(house.router.providers, retries=1, sleep=sleep)
        task = asyncio.create_task(replace(house, router=router).run())
        await paused.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        assert house.provider.called == ["a"]


class TestSeveral:
    """Each is called at once, in turn."""

    @pytest.mark.parametrize(
        "error",
        [
            BUSY,
            AWAY,
            ProviderThrottledError("busy", retry_after=3600),
            ProviderTimeoutError("stalled"),
            ProviderAuthError("who?"),
            ProviderNotConfiguredError("Set it."),
            ProviderStreamBrokenError("cut"),
            ProviderError("something else"),
        ],
    )
    async def test_the_next_one_is_called_without_a_pause(
        self, build: Build, error: ProviderError
    ) -> None:
        house = build({"smart": route(A, B)})
        house.plan(a=[[Usage(9, 0, estimated=True), error]])

        result = await house.run("smart")

        assert result.error is None
        assert result.events == [Usage(9, 0, estimated=True), *GOOD]
        assert house.provider.called == ["a", "b"]
        assert house.clock.pauses == []
        assert house.provider.closed == 2

    async def test_what_is_wrong_is_wrong_for_all(self, build: Build) -> None:
        wrong = ProviderRejectedError("too long")
        house = build({"smart": route(A, B)})
        house.plan(a=[[wrong]])

        assert (await house.run("smart")).error is wrong
        assert house.provider.called == ["a"]

    async def test_fallbacks_are_called_when_all_have_failed(
        self, build: Build
    ) -> None:
        house = build({"smart": route(A, B, fallbacks=[C])})
        house.plan(a=[[BUSY]], b=[[AWAY]])

        assert (await house.run("smart")).error is None
        assert house.provider.called == ["a", "b", "c"]

    async def test_the_last_error_is_told_when_all_have_failed(
        self, build: Build
    ) -> None:
        last = ProviderUnavailableError("the last")
        house = build({"smart": route(A, B, C)})
        house.plan(a=[[BUSY]], b=[[AWAY]], c=[[last]])

        assert (await house.run("smart")).error is last
        assert house.provider.called == ["a", "b", "c"]
        assert house.clock.pauses == []

    async def test_where_they_are_few_they_are_called_again_after_a_pause(
        self, build: Build
    ) -> None:
        house = build({"smart": route(A, B)}, retries=3)
        house.plan(a=[[BUSY], [BUSY]], b=[[AWAY]])

        assert (await house.run("smart")).error is None
        assert house.provider.called == ["a", "b", "a", "b"]
        assert house.clock.pauses == [0.5, 0.5]

    async def test_after_a_timeout_only_others_are_called(self, build: Build) -> None:
        late = ProviderTimeoutError("stalled")
        house = build({"smart": route(A, B)}, retries=5)
        house.plan(a=[[late]], b=[[BUSY], [BUSY], [late]])

        assert (await house.run("smart")).error is late
        assert house.provider.called == ["a", "b", "b", "b"]

    @pytest.mark.parametrize(
        "token",
        [
            TextDelta("Y"),
            ThinkingDelta("Hm"),
            RedactedThinking("x"),
            ToolUseStart("1", "clock"),
        ],
    )
    @pytest.mark.parametrize("name", [A, "smart"])
    async def test_after_a_token_nothing_is_called_again(
        self, build: Build, token: ProviderEvent, name: str
    ) -> None:
        """TRUST F3."""
        house = build({"smart": route(A, B)})
        house.plan(a=[[Usage(1, 0), token, BUSY]])

        result = await house.run(name)

        assert result.error is BUSY
        assert result.events == [Usage(1, 0), token]
        assert house.provider.called == ["a"]
        assert house.clock.pauses == []

    async def test_who_does_not_begin_in_time_is_left_for_another(
        self, build: Build
    ) -> None:
        hasty = Deployment(A, timeout_seconds=0.01)
        house = build({"smart": Route([hasty, Deployment(B, priority=1)])})
        house.plan(a=[[Usage(1, 0), Silence()]])

        result = await house.run("smart")

        assert result.error is None
        assert house.provider.called == ["a", "b"]
        assert house.provider.closed == 2

    async def test_who_has_begun_in_time_may_take_its_time(self, build: Build) -> None:
        hasty = Deployment(A, timeout_seconds=0.01)
        house = build({"smart": Route([hasty])})
        later = asyncio.Event()
        house.plan(a=[[TextDelta("Y"), Silence(until=later), *GOOD]])
        asyncio.get_running_loop().call_later(0.03, later.set)  # more than it had

        result = await house.run("smart")

        assert result.error is None
        assert result.events == [TextDelta("Y"), *GOOD]

    async def test_the_only_one_that_is_late_is_told(self, build: Build) -> None:
        house = build({"smart": Route([Deployment(A, timeout_seconds=0.01)])})
        house.plan(a=[[Silence()]])

        result = await house.run("smart")

        assert isinstance(result.error, ProviderTimeoutError)
        assert "0.01 seconds" in result.error.detail

    @pytest.mark.parametrize("seconds", [None, 60])
    async def test_who_leaves_ends_the_call(
        self, build: Build, seconds: float | None
    ) -> None:
        house = build({"smart": Route([Deployment(A, timeout_seconds=seconds)])})
        house.plan(a=[[Silence()], [TextDelta("Y"), Silence()]])

        task = asyncio.create_task(house.run("smart"))
        await house.provider.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert house.provider.closed == 1

        events = house.events(await house.router.candidates("smart"))
        await anext(events)
        await events.aclose()
        assert house.provider.closed == 2


async def test_calls_and_pauses_are_counted_and_told(build: Build) -> None:
    def counted(name: str, **labels: str) -> float:
        pass_on()
        return REGISTRY.get_sample_value(f"{name}_total", labels) or 0

    def calls(model: str, how: str) -> float:
        return counted("workroom_model_calls", model=model, outcome=how)

    house = build({"smart": route(A, B)})
    house.plan(a=[[ProviderThrottledError("busy", retry_after=9)]])
    before = calls(A, "provider_throttled"), calls(B, "answered")
    pauses = counted("workroom_model_cooldowns", model=A)

    with capture_logs() as logs:
        await house.run("smart")

    after = calls(A, "provider_throttled"), calls(B, "answered")
    assert [later - earlier for earlier, later in zip(before, after, strict=True)] == [
        1,
        1,
    ]
    assert counted("workroom_model_cooldowns", model=A) == pauses + 1
    told = {entry["event"]: entry for entry in logs}
    assert told["provider_called_again"] == {
        "event": "provider_called_again",
        "log_level": "warning",
        "asked": "smart",
        "failed": A,
        "code": "provider_throttled",
        "next": B,
    }
    assert told["model_cools_down"]["model"] == A
