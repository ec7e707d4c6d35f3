"""What a name stands for, and in which order."""

import random
from collections import Counter
from decimal import Decimal

import pytest

from app.core.exceptions import BadRequestError
from app.integrations.llm.base import (
    ModelInfo,
    Prices,
    ProviderNotConfiguredError,
    ProviderThrottledError,
)
from app.integrations.llm.catalogue import Registration
from app.integrations.llm.cooldown import FAILURES, FIRST_SECONDS
from app.integrations.llm.registry import REMEMBER_SECONDS
from app.integrations.llm.routes import Deployment, Route, as_one
from tests.unit.integrations.llm.clock import Clock
from tests.unit.integrations.llm.house import (
    AWAY,
    GOOD,
    A,
    B,
    Build,
    C,
    D,
    Scripted,
    route,
)


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
