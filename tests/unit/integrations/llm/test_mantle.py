"""Bedrock's Mantle endpoint, against a fake that checks signatures."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.core.config import ModelSettings
from app.integrations.llm.base import (
    ProviderAuthError,
    ProviderError,
    ProviderRejectedError,
    ProviderStreamBrokenError,
    ProviderThrottledError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    Stop,
    Usage,
)
from app.integrations.llm.bedrock import BedrockProvider
from app.integrations.llm.bedrock_places import Place
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.http import Http
from tests.fakes.bedrock import ACCESS_KEY, API_KEY, REGION, SECRET_KEY, FakeBedrock
from tests.fakes.faults import Fault, numbered_words
from tests.unit.integrations.llm.calls import ask, outcome, text, user

OPUS = "anthropic.claude-opus-5"
CATALOGUE = Catalogue.load()
KEYS = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}


@pytest.fixture
async def server() -> AsyncIterator[FakeBedrock]:
    async with FakeBedrock() as running:
        yield running


def connect(server: FakeBedrock, http: Http, **settings: Any) -> BedrockProvider:
    values = {
        "aws_region": REGION,
        "bedrock_endpoint": "mantle",
        "bedrock_base_url": server.mantle_url,
        **KEYS,
    }
    return BedrockProvider(ModelSettings(**(values | settings)), CATALOGUE, http)


@pytest.mark.parametrize("credentials", [{}, {"bedrock_api_key": API_KEY}])
async def test_a_whole_answer_by_signature_and_by_key(
    server: FakeBedrock, http: Http, credentials: dict[str, str]
) -> None:
    provider = connect(server, http, **credentials)

    result = await outcome(provider.stream(ask(OPUS, user("Hi"))))

    assert result.error is None
    assert result.text == numbered_words(100)
    assert result.events[-2:] == [Usage(25, 100), Stop("end_turn")]
    [call] = server.calls
    assert call.path == "/anthropic/v1/messages"
    assert call.headers["anthropic-version"] == "2023-06-01"
    assert call.body == {
        "model": OPUS,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [text("Hi")]}],
        "stream": True,
    }


async def test_an_inference_profile_of_the_other_endpoint_is_its_model(
    server: FakeBedrock, http: Http
) -> None:
    result = await outcome(connect(server, http).stream(ask(f"us.{OPUS}")))

    assert result.error is None
    assert server.calls[0].body["model"] == OPUS


async def test_models_have_their_plain_names(server: FakeBedrock, http: Http) -> None:
    names = [info.name for info in await connect(server, http).models()]

    assert f"bedrock/{OPUS}" in names
    assert not any(name.startswith("bedrock/us.") for name in names)
    assert not any("-v1" in name for name in names)


async def test_without_a_base_url_it_calls_the_regions_own(
    server: FakeBedrock, http: Http
) -> None:
    provider = connect(server, http, bedrock_base_url="")

    url = provider._url(Place("us-east-1", "anthropic.claude-opus-5"), "messages")
    assert url == "https://bedrock-mantle.us-east-1.api.aws/anthropic/v1/messages"


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("throttle_first", ProviderThrottledError, 0),
        ("unavailable", ProviderUnavailableError, 0),
        ("midstream_exception", ProviderUnavailableError, 5),
        ("bad_crc", ProviderStreamBrokenError, 5),
        ("cut", ProviderStreamBrokenError, 5),
        ("stall", ProviderTimeoutError, 5),
        ("missing_end", ProviderStreamBrokenError, 100),
    ],
)
async def test_each_fault_is_a_typed_error_after_the_text_that_came(
    server: FakeBedrock,
    http: Http,
    fault: Fault,
    error: type[ProviderError],
    words: int,
) -> None:
    server.plan.faults = [fault]
    provider = connect(server, http)

    result = await outcome(provider.stream(ask(OPUS)))

    assert type(result.error) is error
    assert result.text.split() == numbered_words(words).split()
    assert (await outcome(provider.stream(ask(OPUS)))).error is None


@pytest.mark.parametrize(
    "keys", [{"aws_secret_access_key": "wrong"}, {"bedrock_api_key": "wrong"}]
)
async def test_credentials_that_aws_does_not_take(
    server: FakeBedrock, http: Http, keys: dict[str, str]
) -> None:
    result = await outcome(connect(server, http, **keys).stream(ask(OPUS)))

    assert type(result.error) is ProviderAuthError


async def test_a_body_that_claude_does_not_take(
    server: FakeBedrock, http: Http
) -> None:
    result = await outcome(
        connect(server, http).stream(ask(OPUS, user("a"), user("b")))
    )

    assert type(result.error) is ProviderRejectedError
    assert "roles must alternate" in str(result.error)
