"""Which tool a model is to call: one request, as each server is asked for it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from app.core.config import ModelSettings
from app.integrations.llm.base import (
    ChatRequest,
    ProviderRejectedError,
    ToolChoice,
)
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.http import Http
from app.integrations.llm.ollama import OllamaProvider
from app.integrations.llm.openai import OpenAIProvider
from tests.fakes.ollama import FakeOllama
from tests.fakes.openai import FakeOpenAI
from tests.unit.integrations.llm.calls import ask, outcome, sent
from tests.unit.integrations.llm.conftest import Claude

CATALOGUE = Catalogue.load()
TOOL = {"name": "clock", "description": "The time.", "input_schema": {"type": "object"}}
ONE = {"disable_parallel_tool_use": True}
CHOICES: list[ToolChoice] = [
    {"type": "auto"},
    {"type": "any"},
    {"type": "none"},
    {"type": "tool", "name": "clock"},
    {"type": "tool", "name": "clock", **ONE},
]


def request_of(model: str, choice: ToolChoice | None) -> ChatRequest:
    return replace(ask(model), tools=[TOOL], tool_choice=choice)


class TestClaude:
    @pytest.mark.parametrize("choice", [None, *CHOICES])
    async def test_the_choice_goes_as_it_is(
        self, claude: Claude, choice: ToolChoice | None
    ) -> None:
        server, provider, model = claude

        body = await sent(server, provider, request_of(model, choice))

        assert body.get("tool_choice") == choice
        assert body["tools"][0]["name"] == "clock"

    async def test_a_tool_that_there_is_not_is_refused_there(
        self, claude: Claude
    ) -> None:
        _, provider, model = claude
        choice = {"type": "tool", "name": "compass"}

        result = await outcome(provider.stream(request_of(model, choice)))

        assert isinstance(result.error, ProviderRejectedError)


class TestOpenAI:
    @pytest.fixture
    async def server(self) -> AsyncIterator[FakeOpenAI]:
        async with FakeOpenAI() as running:
            yield running

    @pytest.fixture
    def provider(self, server: FakeOpenAI, http: Http) -> OpenAIProvider:
        settings = ModelSettings(openai_base_url=server.base_url)
        return OpenAIProvider(settings, CATALOGUE, http)

    @pytest.mark.parametrize(
        ("choice", "written"),
        [
            (None, {}),
            ({"type": "auto"}, {"tool_choice": "auto"}),
            ({"type": "any"}, {"tool_choice": "required"}),
            ({"type": "none"}, {"tool_choice": "none"}),
            (
                {"type": "tool", "name": "clock"},
                {"tool_choice": {"type": "function", "function": {"name": "clock"}}},
            ),
            (
                {"type": "any", **ONE},
                {"tool_choice": "required", "parallel_tool_calls": False},
            ),
        ],
    )
    async def test_the_choice_is_written_in_its_words(
        self,
        server: FakeOpenAI,
        provider: OpenAIProvider,
        choice: ToolChoice | None,
        written: dict[str, Any],
    ) -> None:
        body = await sent(server, provider, request_of("fake-small", choice))

        about = ("tool_choice", "parallel_tool_calls")
        assert {name: body[name] for name in about if name in body} == written
        assert body["tools"][0]["function"]["name"] == "clock"

    @pytest.mark.parametrize(
        ("choice", "calls"),
        [({"type": "required"}, 0), ({"type": "tool", "name": "compass"}, 1)],
    )
    async def test_what_cannot_be_chosen_is_refused(
        self,
        server: FakeOpenAI,
        provider: OpenAIProvider,
        choice: ToolChoice,
        calls: int,
    ) -> None:
        result = await outcome(provider.stream(request_of("fake-small", choice)))

        assert isinstance(result.error, ProviderRejectedError)
        assert len(server.calls) == calls


class TestOllama:
    @pytest.fixture
    async def server(self) -> AsyncIterator[FakeOllama]:
        async with FakeOllama() as running:
            yield running

    @pytest.fixture
    def provider(self, server: FakeOllama, http: Http) -> OllamaProvider:
        settings = ModelSettings(ollama_base_url=server.url)
        return OllamaProvider(settings, CATALOGUE, http)

    @pytest.mark.parametrize(
        ("choice", "tools"),
        [(None, ["clock"]), ({"type": "auto"}, ["clock"]), ({"type": "none"}, [])],
    )
    async def test_to_call_none_there_is_none(
        self,
        server: FakeOllama,
        provider: OllamaProvider,
        choice: ToolChoice | None,
        tools: list[str],
    ) -> None:
        body = await sent(server, provider, request_of("llama3.2:latest", choice))

        named = [tool["function"]["name"] for tool in body.get("tools", ())]
        assert named == tools
        assert "tool_choice" not in body

    @pytest.mark.parametrize(
        ("choice", "words"),
        [
            ({"type": "any"}, "type 'any'."),
            ({"type": "tool", "name": "clock"}, "type 'tool'."),
            ({"type": "auto", **ONE}, "'auto' with disable_parallel_tool_use."),
        ],
    )
    async def test_a_call_that_it_cannot_be_made_to_do_is_refused(
        self,
        server: FakeOllama,
        provider: OllamaProvider,
        choice: ToolChoice,
        words: str,
    ) -> None:
        request = request_of("llama3.2:latest", choice)

        result = await outcome(provider.stream(request))

        assert isinstance(result.error, ProviderRejectedError)
        assert result.error.detail.endswith(words)
        assert server.calls == []
