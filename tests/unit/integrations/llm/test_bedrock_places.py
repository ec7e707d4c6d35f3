"""Where on AWS a call goes, and where it goes when that fails."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import pytest

from app.core.config import ConfigError, ModelSettings
from app.integrations.llm.base import (
    ProviderAuthError,
    ProviderError,
    ProviderRejectedError,
    ProviderThrottledError,
    ProviderUnavailableError,
    Usage,
    is_answer,
)
from app.integrations.llm.bedrock import BedrockProvider
from app.integrations.llm.bedrock_places import ModelLackingError, Place, Places
from app.integrations.llm.embeddings import EmbedRequest
from app.integrations.llm.http import Http
from tests.conftest import SettingsFactory, on_sqlite
from tests.fakes.bedrock import ACCESS_KEY, SECRET_KEY, FakeBedrock
from tests.fakes.faults import numbered_words
from tests.unit.integrations.llm.calls import Outcome, ask, outcome
from tests.unit.integrations.llm.house import GOOD, Steps
from tests.unit.integrations.llm.test_bedrock import CATALOGUE

OPUS = "anthropic.claude-opus-5"
AWAY = ProviderUnavailableError("away")
ARN = f"arn:aws:bedrock:us-east-1:1:inference-profile/us.{OPUS}"


def places(*fallbacks: str, home: str = "us-east-1", **settings: Any) -> Places:
    return Places(
        ModelSettings(aws_region=home, bedrock_fallback_regions=fallbacks, **settings)
    )


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (
            f"us.{OPUS}",
            [
                f"us-east-1 us.{OPUS}",
                f"us-west-2 us.{OPUS}",
                f"eu-west-1 eu.{OPUS}",
                f"ap-northeast-1 jp.{OPUS}",
                f"ap-northeast-1 apac.{OPUS}",
            ],
        ),
        # Whoever names the world, or no geography, says where it may be everywhere.
        *(
            (
                model,
                [
                    f"{region} {model}"
                    for region in (
                        "us-east-1",
                        "us-west-2",
                        "eu-west-1",
                        "ap-northeast-1",
                    )
                ],
            )
            for model in (f"global.{OPUS}", OPUS)
        ),
        # Whoever names another geography than the home's gets no third one.
        (f"eu.{OPUS}", [f"us-east-1 eu.{OPUS}", f"eu-west-1 eu.{OPUS}"]),
        (ARN, [f"us-east-1 {ARN}"]),
    ],
)
def test_each_region_has_profiles_of_its_own(model: str, found: list[str]) -> None:
    given = places("us-west-2", "eu-west-1", "ap-northeast-1", "us-east-1")

    assert [" ".join(place) for place in given.of(model)] == found


def test_nothing_leaves_its_geography_unasked() -> None:
    assert places().of(f"us.{OPUS}") == [Place("us-east-1", f"us.{OPUS}")]
    assert places("eu-central-1", home="eu-west-1").of(f"eu.{OPUS}") == [
        Place("eu-west-1", f"eu.{OPUS}"),
        Place("eu-central-1", f"eu.{OPUS}"),
    ]


def test_the_world_comes_after_each_region_s_own_where_it_may() -> None:
    given = places("eu-west-1", bedrock_global_profiles=True)

    assert [" ".join(place) for place in given.of(f"us.{OPUS}")] == [
        f"us-east-1 us.{OPUS}",
        f"us-east-1 global.{OPUS}",
        f"eu-west-1 eu.{OPUS}",
        f"eu-west-1 global.{OPUS}",
    ]


def test_mantle_has_regions_and_no_profiles() -> None:
    given = places("eu-west-1", bedrock_endpoint="mantle", bedrock_global_profiles=True)

    assert given.of(OPUS) == [Place("us-east-1", OPUS), Place("eu-west-1", OPUS)]


class Script:
    """What each region does in turn; afterwards it answers."""

    def __init__(self, **planned: list[Steps]) -> None:
        self.planned = {name.replace("_", "-"): p for name, p in planned.items()}
        self.called: list[str] = []
        self.closed = 0

    async def call(self, place: Place) -> AsyncIterator[Any]:
        self.called.append(place.region)
        planned = self.planned.get(place.region)
        try:
            for step in planned.pop(0) if planned else GOOD:
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            self.closed += 1

    async def run(self, given: Places) -> Outcome:
        return await outcome(
            given.first(f"us.{OPUS}", self.call, begun=is_answer)  # type: ignore[arg-type]  # an async generator
        )


@pytest.mark.parametrize(
    "error",
    [
        AWAY,
        ProviderThrottledError("busy"),
        ProviderAuthError("no access to this model there"),
        ModelLackingError("no such model there"),
    ],
)
async def test_what_fails_in_one_region_is_tried_in_the_next(
    error: ProviderError,
) -> None:
    script = Script(us_east_1=[[Usage(9, 0), error]])

    result = await script.run(places("us-west-2"))

    assert result.error is None
    assert result.events == [Usage(9, 0), *GOOD]
    assert script.called == ["us-east-1", "us-west-2"]
    assert script.closed == 2


async def test_what_is_wrong_at_home_is_wrong() -> None:
    wrong = ProviderRejectedError("too long")
    script = Script(us_east_1=[[wrong]])

    assert (await script.run(places("us-west-2"))).error is wrong
    assert script.called == ["us-east-1"]


async def test_what_is_rejected_elsewhere_may_be_right_in_a_third() -> None:
    """AWS has many words for a model that a region lacks."""
    script = Script(us_east_1=[[AWAY]], us_west_2=[[ProviderRejectedError("what?")]])

    assert (await script.run(places("us-west-2", "us-east-2"))).error is None
    assert script.called == ["us-east-1", "us-west-2", "us-east-2"]


async def test_after_a_token_nothing_is_called_again() -> None:
    """TRUST F3."""
    script = Script(us_east_1=[[GOOD[1], AWAY]])

    result = await script.run(places("us-west-2"))

    assert result.error is AWAY
    assert script.called == ["us-east-1"]


async def test_of_many_errors_one_that_may_pass_is_told() -> None:
    """So whoever called knows that a later try may go through."""
    lacking = ModelLackingError("no such model there")
    script = Script(us_east_1=[[lacking]], us_west_2=[[AWAY]], us_east_2=[[lacking]])

    result = await script.run(places("us-west-2", "us-east-2"))

    assert result.error is AWAY


async def test_a_region_that_cools_down_is_tried_last() -> None:
    busy = ProviderThrottledError("busy", retry_after=60)
    script = Script(us_east_1=[[busy], GOOD], us_west_2=[GOOD, GOOD, [AWAY]])
    given = places("us-west-2")

    for _ in range(4):
        assert (await script.run(given)).error is None

    assert script.called == [
        "us-east-1", "us-west-2", "us-west-2", "us-west-2", "us-east-1", "us-east-1",
    ]  # fmt: skip


async def test_a_region_that_lacks_a_model_is_not_asked_for_it_each_time() -> None:
    script = Script(us_east_1=[[ModelLackingError("no such model there")]])
    given = places("us-west-2")

    for _ in range(3):
        await script.run(given)

    assert script.called == ["us-east-1", *["us-west-2"] * 3]


class TestWire:
    @pytest.fixture
    async def server(self) -> AsyncIterator[FakeBedrock]:
        async with FakeBedrock() as running:
            yield running

    @staticmethod
    def connect(url: str, http: Http, **settings: Any) -> BedrockProvider:
        values = {
            "aws_region": "us-east-1",
            "aws_access_key_id": ACCESS_KEY,
            "aws_secret_access_key": SECRET_KEY,
            "bedrock_base_url": f"{url}/{{region}}",
            "bedrock_fallback_regions": ("eu-west-1",),
        }
        return BedrockProvider(ModelSettings(**(values | settings)), CATALOGUE, http)

    async def test_the_next_region_is_asked_at_its_address_in_its_name(
        self, server: FakeBedrock, http: Http
    ) -> None:
        """The fake checks that each signature names the region of its path."""
        server.plan.faults = ["throttle_first"]

        result = await outcome(self.connect(server.url, http).stream(ask(f"us.{OPUS}")))

        assert result.error is None
        assert result.text == numbered_words(100)
        path = "/{}/model/{}.anthropic.claude-opus-5/invoke-with-response-stream"
        assert [unquote(call.path) for call in server.calls] == [
            path.format("us-east-1", "us"),
            path.format("eu-west-1", "eu"),
        ]

    async def test_embeddings_and_counts_too(
        self, server: FakeBedrock, http: Http
    ) -> None:
        server.plan.faults = ["throttle_first", "none", "unavailable"]
        provider = self.connect(server.url, http)
        titan, haiku = "amazon.titan-embed-text-v2:0", f"{OPUS}-v1"
        message = {"role": "user", "content": "Hi"}

        embedded = await provider.embed(EmbedRequest(titan, ["a"]))
        counted = await provider.count_body(f"us.{haiku}", {"messages": [message]})

        assert len(embedded.vectors) == 1
        assert counted == Usage(25, 0)
        assert [unquote(call.path) for call in server.calls] == [
            f"/{region}/model/{rest}"
            for rest in (f"{titan}/invoke", f"{haiku}/count-tokens")
            for region in ("us-east-1", "eu-west-1")
        ]

    async def test_mantle_too(self, server: FakeBedrock, http: Http) -> None:
        server.plan.faults = ["unavailable"]
        provider = self.connect(
            server.url,
            http,
            bedrock_base_url=f"{server.url}/{{region}}/anthropic",
            bedrock_endpoint="mantle",
        )

        result = await outcome(provider.stream(ask(OPUS)))

        assert result.error is None
        paths = [call.path for call in server.calls]
        assert paths == [
            f"/{region}/anthropic/v1/messages" for region in ("us-east-1", "eu-west-1")
        ]

    async def test_a_model_that_aws_does_not_know_there_is_lacking(
        self, server: FakeBedrock, http: Http
    ) -> None:
        result = await outcome(self.connect(server.url, http).stream(ask("no.model")))

        assert type(result.error) is ModelLackingError
        assert len(server.calls) == 2

    async def test_who_leaves_ends_the_call(
        self, server: FakeBedrock, http: Http
    ) -> None:
        server.plan.update({"faults": ["throttle_first", "stall"], "at_chunk": 1})
        events = self.connect(server.url, http).stream(ask(f"us.{OPUS}"))

        async for event in events:
            if is_answer(event):
                break
        await events.aclose()  # type: ignore[attr-defined]  # an async generator

        async with asyncio.timeout(5):
            await server.calls[1].ended.wait()
        assert server.calls[1].outcome == "dropped"


@on_sqlite
def test_an_address_of_one_region_is_none_for_several(
    settings_with: SettingsFactory,
) -> None:
    several = {"AWS_REGION": "us-east-1", "BEDROCK_FALLBACK_REGIONS": "us-west-2"}

    with pytest.raises(ConfigError, match=r"^BEDROCK_BASE_URL: .*\{region\}"):
        settings_with(BEDROCK_BASE_URL="https://vpce.example.com", **several)

    settings = settings_with(BEDROCK_BASE_URL="https://{region}.example.com", **several)
    assert settings.models.bedrock_fallback_regions == ("us-west-2",)
