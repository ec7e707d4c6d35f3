"""What a name stands for, and calls that are made again before the first token."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from app.core.config import LiveSettings, load_settings
from app.core.exceptions import BadRequestError
from app.integrations.llm.base import (
    ChatRequest,
    ModelInfo,
    Prices,
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
    Stop,
    TextDelta,
    ThinkingDelta,
    ToolUseStart,
    Usage,
    is_answer,
)
from app.integrations.llm.catalogue import Catalogue, Registration
from app.integrations.llm.cooldown import FAILURES, FIRST_SECONDS
from app.integrations.llm.registry import REMEMBER_SECONDS, Providers
from app.integrations.llm.routing import Candidate, Deployment, Route, Router, as_one
from tests.unit.integrations.llm.calls import Outcome, ask, outcome
from tests.unit.integrations.llm.clock import Clock

GOOD = (Usage(1, 0), TextDelta("Yes"), Stop("end_turn"))
BUSY = ProviderThrottledError("busy")
AWAY = ProviderUnavailableError("away")
IDS = ("a", "b", "c", "d")
A, B, C, D = (f"test/{name}" for name in IDS)


@dataclass
class Silence:
    """A step that takes until then, which mostly never comes."""

    until: asyncio.Event = field(default_factory=asyncio.Event)


Steps = Sequence[ProviderEvent | ProviderError | Silence]


@dataclass
class Scripted:
    """What each call of a model does in turn: events, and the error where it ends.

    A model that has no more to do answers well.
    """

    name: str = "test"
    missing: str | None = None
    ids: Sequence[str] = IDS
    calls: dict[str, list[Steps]] = field(default_factory=dict)
    called: list[str] = field(default_factory=list)
    asked: int = 0
    closed: int = 0
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def models(self) -> list[ModelInfo]:
        self.asked += 1
        return [Catalogue.load().info(f"{self.name}/{one}") for one in self.ids]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ProviderEvent]:
        self.called.append(request.model)
        self.begun.set()
        planned = self.calls.get(request.model)
        try:
            for step in planned.pop(0) if planned else GOOD:
                if isinstance(step, Silence):
                    await step.until.wait()
                    continue
                if isinstance(step, ProviderError):
                    raise step
                yield step
        finally:
            self.closed += 1

    async def close(self) -> None: ...


@dataclass
class House:
    router: Router
    provider: Scripted
    clock: Clock
    catalogue: Catalogue

    async def names(self, name: str, tokens: int = 0) -> list[str]:
        found = await self.router.candidates(name, tokens=tokens)
        return [candidate.model.name for candidate in found]

    def events(
        self, candidates: Sequence[Candidate], tokens: int = 0
    ) -> AsyncGenerator[ProviderEvent]:
        def call(candidate: Candidate) -> AsyncGenerator[ProviderEvent]:
            return self.provider.stream(ask(candidate.model.id))

        return self.router.routed(candidates, call, begun=is_answer, tokens=tokens)

    async def run(self, name: str = A, tokens: int = 0) -> Outcome:
        candidates = await self.router.candidates(name, tokens=tokens)
        return await outcome(self.events(candidates, tokens))

    def plan(self, **calls: list[Steps]) -> None:
        self.provider.calls.update(calls)


Build = Callable[..., House]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def make(
        routes: Mapping[str, Route] | None = None,
        *others: Any,
        retries: int = 2,
        chance: Callable[[], float] = lambda: 1.0,
    ) -> House:
        settings = load_settings({"SECRET_KEY": "x" * 32}, tmp_path)
        provider, clock, catalogue = Scripted(), Clock(), Catalogue.load()
        providers = Providers(
            LiveSettings(settings), [provider, *others], catalogue=catalogue
        )
        router = Router(
            providers,
            retries=retries,
            clock=clock,
            sleep=clock.sleep,
            chance=chance,
        )
        router.register(routes or {})
        return House(router, provider, clock, catalogue)

    return make


def route(*models: str, fallbacks: Sequence[str] = ()) -> Route:
    """Of deployments that are tried in this order."""
    deployments = [Deployment(model, priority=n) for n, model in enumerate(models)]
    return Route(deployments, fallbacks)


class TestNames:
    async def test_a_model_stands_for_itself(self, build: Build) -> None:
        house = build()

        (candidate,) = await house.router.candidates(A)

        assert candidate.provider is house.provider
        assert candidate.model == house.catalogue.info(A)
        assert candidate.asked == A

    async def test_what_is_no_route_is_told_as_an_unknown_model(
        self, build: Build
    ) -> None:
        for name in ("smart", "test/x", "nobody/x"):
            with pytest.raises(BadRequestError) as caught:
                await build({"other": route(A)}).router.candidates(name)
            assert caught.value.code == "unknown_model"

    async def test_a_known_name_is_not_looked_up_again(
        self, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        house = build()
        clock = Clock()
        monkeypatch.setattr("time.monotonic", clock)

        for _ in range(100):
            await house.names(A)
        assert house.provider.asked == 1
        clock.now += REMEMBER_SECONDS
        await house.names(A)
        assert house.provider.asked == 2

    async def test_what_admins_change_counts_at_once(self, build: Build) -> None:
        house = build()
        await house.names(A)

        house.catalogue.register_one(A, Registration(context_window=777))
        (candidate,) = await house.router.candidates(A)
        house.catalogue.register({A: Registration(enabled=False)})

        assert candidate.model.context_window == 777
        with pytest.raises(BadRequestError):
            await house.names(A)

    async def test_a_route_that_is_gone_is_unknown(self, build: Build) -> None:
        house = build({"smart": route(A)})

        house.router.register_one("smart", route(B))
        assert await house.names("smart") == [B]
        house.router.register_one("smart", None)

        with pytest.raises(BadRequestError):
            await house.names("smart")


class TestOrder:
    async def test_the_least_priority_goes_first(self, build: Build) -> None:
        given = Route(
            [Deployment(A, 1000, 2), Deployment(B, 1, 0), Deployment(C, 9, 1)]
        )

        assert await build({"smart": given}).names("smart") == [B, C, A]

    async def test_among_equals_weights_draw_without_replacement(
        self, build: Build
    ) -> None:
        given = Route([Deployment(A, 5), Deployment(B, 3), Deployment(C, 2)])
        house = build({"smart": given}, chance=random.Random(7).random)

        orders = Counter([tuple(await house.names("smart")) for _ in range(5000)])

        weights, square = {A: 5, B: 3, C: 2}, 0.0
        for order in [(A, B, C), (A, C, B), (B, A, C), (B, C, A), (C, A, B), (C, B, A)]:
            first, second, _ = order
            share = weights[first] / 10 * weights[second] / (10 - weights[first])
            expected = 5000 * share
            square += (orders[order] - expected) ** 2 / expected
        assert square < 20.52  # chi-square, 5 degrees of freedom, p = 0.001

    async def test_fallbacks_follow_with_what_they_lead_to(self, build: Build) -> None:
        house = build(
            {
                "smart": route(A, B, fallbacks=["other", D]),
                "other": route(C, A, fallbacks=["smart"]),  # no service lets this in
            }
        )

        assert await house.names("smart") == [A, B, C, D]

    async def test_where_a_route_may_lead_is_known(self, build: Build) -> None:
        house = build(
            {
                "smart": route(A, fallbacks=["other"]),
                "other": route(B, fallbacks=["smart", C]),
            }
        )

        led = [name for name in (A, B, C, D) if house.router.leads_to("smart", name)]

        assert led == [A, B, C]
        assert not house.router.leads_to(A, A)

    async def test_what_cannot_be_called_is_left_out(self, build: Build) -> None:
        off = Scripted("off", missing="Set OFF.", ids=())
        house = build({"smart": route("off/x", "test/x", B, fallbacks=["off/y"])}, off)

        assert await house.names("smart") == [B]

    async def test_where_nothing_can_the_first_reason_is_told(
        self, build: Build
    ) -> None:
        off = Scripted("off", missing="Set OFF.", ids=())
        house = build({"smart": route("off/x", "test/x")}, off)

        with pytest.raises(ProviderNotConfiguredError, match=r"^Set OFF\.$"):
            await house.names("smart")

    async def test_what_cools_down_goes_last_until_it_may_be_tried(
        self, build: Build
    ) -> None:
        house = build({"smart": route(A, B, fallbacks=[C])})
        house.plan(a=[[AWAY]] * FAILURES)

        for _ in range(FAILURES):
            assert (await house.run("smart")).error is None
        assert await house.names("smart") == [B, C, A]
        house.clock.now += FIRST_SECONDS
        assert await house.names("smart") == [A, B, C]

    async def test_all_routes_and_the_model_s_own_name_learn_of_a_pause(
        self, build: Build
    ) -> None:
        house = build({"one": route(A, B), "two": route(A, C)}, retries=0)
        house.plan(a=[[AWAY]] * FAILURES)

        for name in (A, A, "one"):
            await house.run(name)

        assert await house.names("two") == [C, A]

    async def test_after_a_pause_one_call_tries_while_others_stay_away(
        self, build: Build
    ) -> None:
        house = build({"smart": route(A, B)})
        house.plan(a=[[ProviderThrottledError("busy", retry_after=60)]])
        await house.run("smart")
        house.clock.now += 60

        events = house.events(await house.router.candidates("smart"))
        first = await anext(events)  # an estimate: nothing of an answer yet
        others = await house.names("smart")
        second = await anext(events)

        assert (first, second) == GOOD[:2]
        assert others == [B, A]
        assert await house.names("smart") == [A, B]
        await events.aclose()


class TestLimits:
    async def test_a_full_deployment_goes_last(self, build: Build) -> None:
        limited = Deployment(A, requests_per_minute=2)
        house = build({"smart": Route([limited, Deployment(B, priority=1)])})

        for _ in range(4):
            await house.run("smart")

        assert house.provider.called == ["a", "a", "b", "b"]
        house.clock.now += 30
        assert await house.names("smart") == [A, B]

    async def test_tokens_count_and_are_corrected_afterwards(
        self, build: Build
    ) -> None:
        limited = Deployment(A, tokens_per_minute=1000)
        house = build({"smart": Route([limited, Deployment(B, priority=1)])})

        candidate, _ = await house.router.candidates("smart", tokens=600)
        await house.run("smart", tokens=600)

        assert await house.names("smart", tokens=600) == [B, A]
        candidate.count(-500)
        assert await house.names("smart", tokens=600) == [A, B]
        candidate.count(1000)
        assert await house.names("smart", tokens=1) == [B, A]

    async def test_a_limit_is_never_passed(self, build: Build) -> None:
        """Where there is nothing else, a call waits for its turn as for a provider."""
        limited = Deployment(A, requests_per_minute=60)
        house = build({"smart": Route([limited])})

        for _ in range(62):
            assert (await house.run("smart")).error is None

        assert house.clock.pauses == pytest.approx([1, 1])

    async def test_who_would_wait_for_long_is_told(self, build: Build) -> None:
        house = build({"smart": Route([Deployment(A, requests_per_minute=1)])})
        await house.run("smart")

        result = await house.run("smart")

        assert isinstance(result.error, ProviderThrottledError)
        assert result.error.headers == {"Retry-After": "60"}
        assert house.provider.called == ["a"]
        assert not (await house.router.candidates(A))[0].cooldown.cools(1000.0)

    async def test_a_change_of_others_leaves_what_was_counted(
        self, build: Build
    ) -> None:
        given = Route([Deployment(A, requests_per_minute=1), Deployment(B, priority=1)])
        house = build({"smart": given})
        await house.run("smart")

        house.router.register({"smart": given, "other": route(C)})
        assert await house.names("smart") == [B, A]

        more = Deployment(A, requests_per_minute=2)
        house.router.register_one("smart", Route([more, Deployment(B, priority=1)]))
        assert await house.names("smart") == [A, B]


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
        task = asyncio.create_task(House(router, *_rest(house)).run())
        await paused.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        assert house.provider.called == ["a"]


def _rest(house: House) -> tuple[Scripted, Clock, Catalogue]:
    return house.provider, house.clock, house.catalogue


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


class TestFacts:
    async def test_are_what_can_be_relied_on(self, build: Build) -> None:
        house = build(
            {"smart": route(A, B, "test/x", fallbacks=[C]), "off": route("x")}
        )
        house.catalogue.register(
            {
                A: Registration(context_window=9000, max_output_tokens=100),
                B: Registration(context_window=5000, max_output_tokens=200),
                C: Registration(context_window=10),
            }
        )

        (info,) = await house.router.offered()

        assert info.name == "smart"
        assert (info.context_window, info.max_output_tokens) == (5000, 100)

    def test_are_the_dearest_price_and_what_all_can(self) -> None:
        def prices(*each: int) -> Prices:
            return Prices(*map(Decimal, each))

        one = ModelInfo("t/1", 10, 5, frozenset({"text", "tools"}), prices(1, 20, 3, 4))
        two = ModelInfo(
            "t/2", 20, 4, frozenset({"text", "vision"}), prices(2, 10, 1, 9)
        )
        free = ModelInfo("t/3", 30, 9, frozenset({"text"}))

        assert as_one("smart", [one, two, free]) == ModelInfo(
            "smart", 10, 4, frozenset({"text"}), prices(2, 20, 3, 9)
        )
        assert as_one("free", [free, free]).prices is None
        assert as_one("smart", [one]).name == "smart"


async def test_calls_and_pauses_are_counted_and_told(build: Build) -> None:
    def counted(name: str, **labels: str) -> float:
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
