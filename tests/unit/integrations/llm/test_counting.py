"""Counts of tokens by each way to Claude, and estimates for all others."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from app.core.config import ModelSettings
from app.integrations.llm.anthropic import AnthropicProvider
from app.integrations.llm.base import (
    ProviderAuthError,
    ProviderError,
    ProviderNotConfiguredError,
    ProviderRejectedError,
    ProviderStreamBrokenError,
    ProviderThrottledError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    Usage,
)
from app.integrations.llm.bedrock import BedrockProvider
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.counting import TokenCounter, count_tokens
from app.integrations.llm.guide import GuideProvider
from app.integrations.llm.http import Http
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.bedrock import API_KEY, REGION, TAKEN_BETAS, FakeBedrock
from tests.fakes.faults import Fault
from tests.fakes.manual import NoManual
from tests.fakes.model_server import FakeServer
from tests.unit.integrations.llm.calls import ask, user
from tests.unit.integrations.llm.conftest import Claude

CATALOGUE = Catalogue.load()
HAIKU = "anthropic.claude-haiku-4-5-20251001-v1:0"
BODY: dict[str, Any] = {
    "system": "Be brief.",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi there"}]}],
    "thinking": {"type": "disabled"},
}
ESTIMATED = Usage(3 + 4 + 2, 0, estimated=True)


def counter_of(claude: Claude) -> tuple[FakeServer, TokenCounter, str]:
    server, provider, model = claude
    assert isinstance(provider, TokenCounter)
    return server, provider, model


class TestBodies:
    async def test_the_provider_s_figure_is_told(self, claude: Claude) -> None:
        server, counter, model = counter_of(claude)
        server.plan.input_tokens = 123

        assert await counter.count_body(model, BODY) == Usage(123, 0)

    async def test_a_whole_call_s_body_will_do(self, claude: Claude) -> None:
        _, counter, model = counter_of(claude)
        whole = {**BODY, "max_tokens": 9, "stream": True, "temperature": 0.5}
        whole |= {"model": "theirs", "stop_sequences": ["x"], "metadata": {}}

        counted = await counter.count_body(model, whole)

        assert not counted.estimated

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            ("throttle_first", ProviderThrottledError),
            ("unavailable", ProviderUnavailableError),
            ("bad_crc", ProviderStreamBrokenError),
            ("cut", ProviderStreamBrokenError),
            ("stall", ProviderTimeoutError),
        ],
    )
    async def test_each_fault_is_a_typed_error(
        self, claude: Claude, fault: Fault, error: type[ProviderError]
    ) -> None:
        server, counter, model = counter_of(claude)
        server.plan.faults = [fault]

        with pytest.raises(ProviderError) as caught:
            await counter.count_body(model, BODY)

        assert type(caught.value) is error

    async def test_betas_go_along(self, claude: Claude) -> None:
        server, counter, model = counter_of(claude)

        one, two, _ = sorted(TAKEN_BETAS)

        await counter.count_body(model, BODY, betas=f"{one}, {two}")

        [call] = server.calls
        if "input" in call.body:
            assert _wrapped(call.body)["anthropic_beta"] == [one, two]
        else:
            assert call.headers["anthropic-beta"] == f"{one}, {two}"


def _wrapped(body: Any) -> Any:
    return json.loads(base64.b64decode(body["input"]["invokeModel"]["body"]))


class TestAnthropic:
    async def test_what_it_rejects_is_rejected(self, http: Http) -> None:
        async with FakeAnthropic() as server:
            counter = _anthropic(server, http, anthropic_api_key="sk-ant-for-tests")

            with pytest.raises(ProviderRejectedError, match="odd: Extra inputs"):
                await counter.count_body("claude-opus-5", {**BODY, "odd": 1})
            assert server.calls[0].body == {**BODY, "odd": 1, "model": "claude-opus-5"}
            assert server.calls[0].path == "/v1/messages/count_tokens"

    async def test_a_wrong_key_is_the_installation_s_matter(self, http: Http) -> None:
        async with FakeAnthropic() as server:
            counter = _anthropic(server, http, anthropic_api_key="wrong")

            with pytest.raises(ProviderAuthError):
                await counter.count_body("claude-opus-5", BODY)

    async def test_without_a_key_it_is_not_set_up(self, http: Http) -> None:
        counter = AnthropicProvider(ModelSettings(), CATALOGUE, http)

        with pytest.raises(ProviderNotConfiguredError):
            await counter.count_body("claude-opus-5", BODY)


def _anthropic(server: FakeServer, http: Http, **settings: Any) -> AnthropicProvider:
    models = ModelSettings(anthropic_base_url=server.url, **settings)
    return AnthropicProvider(models, CATALOGUE, http)


def _bedrock(server: FakeServer, http: Http, **settings: Any) -> BedrockProvider:
    values = {"bedrock_base_url": server.url, "bedrock_api_key": API_KEY, **settings}
    models = ModelSettings(aws_region=REGION, **values)
    return BedrockProvider(models, CATALOGUE, http)


class TestBedrock:
    async def test_runtime_knows_models_by_their_plain_ids(self, http: Http) -> None:
        async with FakeBedrock() as server:
            counted = await _bedrock(server, http).count_body(f"us.{HAIKU}", BODY)

            [call] = server.calls
            assert not counted.estimated
            assert call.path == f"/model/{HAIKU.replace(':', '%3A')}/count-tokens"
            assert _wrapped(call.body) == {
                "anthropic_version": "bedrock-2023-05-31",
                "max_tokens": 64_000,
                **BODY,
            }

    @pytest.mark.parametrize(
        ("model", "wrong"),
        [
            ("us.anthropic.claude-opus-5", {}),  # AWS counts only for some models
            (HAIKU, {"bedrock_api_key": "not permitted"}),
        ],
    )
    async def test_where_aws_does_not_count_it_is_our_estimate(
        self, http: Http, model: str, wrong: dict[str, str]
    ) -> None:
        async with FakeBedrock() as server:
            counter = _bedrock(server, http, **wrong)

            assert await counter.count_body(model, BODY) == ESTIMATED

    @pytest.mark.parametrize(
        "body", [{}, {"messages": 1}, {"messages": [{"role": "user"}]}]
    )
    async def test_what_nobody_can_read_is_rejected(
        self, http: Http, body: dict[str, Any]
    ) -> None:
        async with FakeBedrock() as server:
            with pytest.raises(ProviderRejectedError):
                await _bedrock(server, http).count_body("claude-nonsense", body)

    async def test_without_a_region_it_is_not_set_up(self, http: Http) -> None:
        counter = BedrockProvider(ModelSettings(), CATALOGUE, http)

        with pytest.raises(ProviderNotConfiguredError):
            await counter.count_body(HAIKU, BODY)


class TestRequests:
    async def test_claude_counts_its_own_form_of_them(self, claude: Claude) -> None:
        server, provider, model = claude
        info = CATALOGUE.info(f"{provider.name}/{model}")
        request = replace(ask(model, user("Hi"), system="Be brief."), temperature=0.5)

        counted = await count_tokens(provider, info, request)

        [call] = server.calls
        sent = _wrapped(call.body) if "input" in call.body else call.body
        assert counted == Usage(server.plan.input_tokens, 0)
        assert sent["messages"][0]["content"] == [{"type": "text", "text": "Hi"}]
        assert sent["system"][0]["text"] == "Be brief."

    async def test_others_are_estimated(self) -> None:
        guide = GuideProvider(NoManual())
        [info] = await guide.models()

        counted = await count_tokens(guide, info, ask("manual", user("12345678")))

        assert counted == Usage(4 + 2, 0, estimated=True)
