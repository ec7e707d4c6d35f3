"""How an answer is to be: one request, as each server is asked for it.

Sampling, stop sequences, thinking, and the answer's format.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from app.core.config import ModelSettings
from app.integrations.llm.base import (
    ChatRequest,
    OutputFormat,
    ProviderRejectedError,
    Stop,
    Thinking,
    Usage,
)
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.guide import GuideProvider
from app.integrations.llm.http import Http
from app.integrations.llm.messages_api import JSON_ALONE, effort_of, message_body
from app.integrations.llm.ollama import OllamaProvider
from app.integrations.llm.openai import OpenAIProvider
from tests.fakes.manual import NoManual
from tests.fakes.ollama import FakeOllama
from tests.fakes.openai import FakeOpenAI
from tests.unit.integrations.llm.calls import ask, outcome, sent, user
from tests.unit.integrations.llm.conftest import Claude

CATALOGUE = Catalogue.load()
SAMPLING: dict[str, Any] = {"temperature": 0.0, "top_p": 0.5}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
NAMED: OutputFormat = {"type": "json_schema", "name": "answer", "schema": SCHEMA}
JSON: OutputFormat = {"type": "json"}

OFF: Thinking = {"type": "disabled"}
FREE: Thinking = {"type": "adaptive"}
HARD: Thinking = {"type": "adaptive", "effort": "max"}


def budget(tokens: int) -> Thinking:
    return {"type": "enabled", "budget_tokens": tokens}


def wishing(model: str, **wishes: Any) -> ChatRequest:
    return replace(ask(model, user("Count.")), **wishes)


ABOUT = (
    "temperature", "top_p", "top_k", "stop_sequences", "stop", "thinking", "think",
    "reasoning_effort", "output_config", "response_format", "format",
)  # fmt: skip


def about(body: dict[str, Any]) -> dict[str, Any]:
    """What of a body is about the answer."""
    return {name: body[name] for name in ABOUT if name in body}


class TestClaude:
    async def test_without_a_wish_nothing_is_said(self, claude: Claude) -> None:
        server, provider, model = claude

        assert about(await sent(server, provider, ask(model))) == {}

    async def test_sampling_and_stop_sequences_go_as_they_are(
        self, claude: Claude
    ) -> None:
        server, provider, model = claude
        wishes: dict[str, Any] = {**SAMPLING, "top_k": 7, "stop_sequences": ["w0003"]}

        body = await sent(server, provider, wishing(model, **wishes))

        assert about(body) == wishes

    async def test_the_stop_sequence_that_ended_an_answer_is_told(
        self, claude: Claude
    ) -> None:
        server, provider, model = claude
        server.plan.update({"text": "one two three"})
        request = wishing(model, stop_sequences=["three", "two"])

        result = await outcome(provider.stream(request))

        assert result.text == "one "
        assert result.events[-1] == Stop("stop_sequence", "two")

    @pytest.mark.parametrize(
        ("thinking", "written"),
        [
            (OFF, {"thinking": OFF}),
            (FREE, {"thinking": FREE}),
            (HARD, {"thinking": FREE, "output_config": {"effort": "max"}}),
            (budget(2048), {"thinking": FREE, "output_config": {"effort": "low"}}),
        ],
    )
    async def test_thinking_is_at_an_effort(
        self, claude: Claude, thinking: Thinking, written: dict[str, Any]
    ) -> None:
        server, provider, model = claude

        body = await sent(server, provider, wishing(model, thinking=thinking))

        assert about(body) == written

    async def test_an_answer_may_have_to_fit_a_schema(self, claude: Claude) -> None:
        server, provider, model = claude
        wishes = {"output_format": NAMED, "thinking": HARD}

        body = await sent(server, provider, wishing(model, **wishes))

        told = {"type": "json_schema", "schema": SCHEMA}
        assert body["output_config"] == {"effort": "max", "format": told}

    async def test_that_it_be_json_is_said_in_words(self, claude: Claude) -> None:
        server, provider, model = claude
        request = wishing(model, output_format=JSON)

        alone = await sent(server, provider, request)
        beside = await sent(server, provider, replace(request, system="Be brief."))

        said = [block["text"] for block in beside["system"]]
        assert [block["text"] for block in alone["system"]] == [JSON_ALONE]
        assert said == ["Be brief.", JSON_ALONE]
        assert "output_config" not in alone

    async def test_what_a_model_does_not_take_its_refusal_names(
        self, claude: Claude
    ) -> None:
        _, provider, model = claude

        result = await outcome(provider.stream(wishing(model, temperature=1.5)))

        assert isinstance(result.error, ProviderRejectedError)
        assert "temperature" in result.error.detail

    def test_an_older_model_thinks_by_a_budget(self) -> None:
        request = wishing("m", thinking=budget(2048))

        body, _ = message_body(request, capabilities={"prefill"})

        assert about(body) == {"thinking": budget(2048)}


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        (FREE, None),
        (HARD, "high"),
        ({**FREE, "effort": "xhigh"}, "high"),
        ({**FREE, "effort": "low"}, "low"),
        (budget(1024), "low"),
        (budget(4095), "low"),
        (budget(4096), "medium"),
        (budget(8191), "medium"),
        (budget(31_999), "high"),
    ],
)
def test_thinking_as_an_effort(thinking: Thinking, effort: str | None) -> None:
    assert effort_of(thinking) == effort


class TestOpenAI:
    @pytest.fixture
    async def server(self) -> AsyncIterator[FakeOpenAI]:
        async with FakeOpenAI() as running:
            yield running

    @pytest.fixture
    def provider(self, server: FakeOpenAI, http: Http) -> OpenAIProvider:
        settings = ModelSettings(openai_base_url=server.base_url)
        return OpenAIProvider(settings, CATALOGUE, http)

    @pytest.fixture
    def own(self, http: Http) -> OpenAIProvider:
        """OpenAI's, which is not asked: only what it would be."""
        return OpenAIProvider(ModelSettings(openai_api_key="sk-x"), CATALOGUE, http)

    @pytest.mark.parametrize(
        ("wishes", "written"),
        [
            ({}, {}),
            ({**SAMPLING, "top_k": 7}, {**SAMPLING, "top_k": 7}),
            ({"stop_sequences": ["w0003"]}, {"stop": ["w0003"]}),
            ({"thinking": OFF}, {"reasoning_effort": "none"}),
            ({"thinking": FREE}, {}),
            ({"thinking": HARD}, {"reasoning_effort": "high"}),
            ({"thinking": budget(5000)}, {"reasoning_effort": "medium"}),
            ({"output_format": JSON}, {"response_format": {"type": "json_object"}}),
            (
                {"output_format": NAMED},
                {
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {
                            "name": "answer",
                            "schema": SCHEMA,
                            "strict": True,
                        },
                    }
                },
            ),
        ],
    )
    async def test_wishes_are_written_in_its_words(
        self,
        server: FakeOpenAI,
        provider: OpenAIProvider,
        wishes: dict[str, Any],
        written: dict[str, Any],
    ) -> None:
        body = await sent(server, provider, wishing("fake-small", **wishes))

        assert about(body) == written

    async def test_a_server_may_tell_the_stop_sequence(
        self, server: FakeOpenAI, provider: OpenAIProvider
    ) -> None:
        server.plan.update({"text": "one two three"})
        request = wishing("fake-small", stop_sequences=["two"])

        result = await outcome(provider.stream(request))

        assert result.text == "one "
        assert result.events[-1] == Stop("stop_sequence", "two")

    def test_openai_itself_has_no_top_k(self, own: OpenAIProvider) -> None:
        with pytest.raises(ProviderRejectedError, match=r"takes no top_k\."):
            own._body(wishing("gpt-5.6", top_k=7))

    @pytest.mark.parametrize(
        ("thinking", "written"),
        [
            (OFF, {"reasoning_effort": "none"}),
            (budget(2048), {"reasoning_effort": "low"}),
        ],
    )
    @pytest.mark.parametrize("model", ["gpt-5.6", "gpt-from-the-future"])
    def test_openai_is_told_how_much_its_models_think(
        self,
        own: OpenAIProvider,
        model: str,
        thinking: Thinking,
        written: dict[str, Any],
    ) -> None:
        assert about(own._body(wishing(model, thinking=thinking))) == written

    def test_a_model_that_does_not_think_is_not_told_how_much(
        self, own: OpenAIProvider
    ) -> None:
        for thinking in (OFF, FREE, HARD):
            assert about(own._body(wishing("gpt-4.1", thinking=thinking))) == {}
        with pytest.raises(ProviderRejectedError, match=r"gpt-4\.1 takes no thinking"):
            own._body(wishing("gpt-4.1", thinking=budget(2048)))


class TestOllama:
    THINKS = "tiny-vision:1b"
    DOES_NOT = "llama3.2:latest"
    BY_LEVEL = "gpt-oss:20b"

    @pytest.fixture
    async def server(self) -> AsyncIterator[FakeOllama]:
        async with FakeOllama() as running:
            shown = {"capabilities": ["completion", "thinking"], "model_info": {}}
            running.models[self.BY_LEVEL] = shown
            yield running

    @pytest.fixture
    def provider(self, server: FakeOllama, http: Http) -> OllamaProvider:
        settings = ModelSettings(ollama_base_url=server.url)
        return OllamaProvider(settings, CATALOGUE, http)

    async def test_sampling_and_stop_sequences_are_options(
        self, server: FakeOllama, provider: OllamaProvider
    ) -> None:
        wishes: dict[str, Any] = {**SAMPLING, "top_k": 7, "stop_sequences": ["w0003"]}

        body = await sent(server, provider, wishing(self.DOES_NOT, **wishes))

        assert about(body["options"]) == {**SAMPLING, "top_k": 7, "stop": ["w0003"]}
        assert about(body) == {}

    async def test_which_sequence_stopped_it_does_not_tell(
        self, server: FakeOllama, provider: OllamaProvider
    ) -> None:
        server.plan.update({"text": "one two three"})
        request = wishing(self.DOES_NOT, stop_sequences=["two"])

        result = await outcome(provider.stream(request))

        assert result.text == "one "
        assert result.events[-1] == Stop("end_turn")

    @pytest.mark.parametrize(
        ("model", "thinking", "written"),
        [
            (THINKS, OFF, {"think": False}),
            (THINKS, FREE, {"think": True}),
            (THINKS, HARD, {"think": True}),
            (THINKS, budget(2048), {"think": True}),
            (BY_LEVEL, FREE, {"think": True}),
            (BY_LEVEL, budget(2048), {"think": "low"}),
            (DOES_NOT, OFF, {}),
            (DOES_NOT, HARD, {}),
        ],
    )
    async def test_how_much_to_think(
        self,
        server: FakeOllama,
        provider: OllamaProvider,
        model: str,
        thinking: Thinking,
        written: dict[str, Any],
    ) -> None:
        body = await sent(server, provider, wishing(model, thinking=thinking))

        assert about(body) == written

    async def test_a_model_that_cannot_think_is_not_made_to(
        self, server: FakeOllama, provider: OllamaProvider
    ) -> None:
        request = wishing(self.DOES_NOT, thinking=budget(2048))

        result = await outcome(provider.stream(request))

        assert isinstance(result.error, ProviderRejectedError)
        assert result.error.detail == "ollama/llama3.2:latest takes no thinking."
        assert server.calls == []

    @pytest.mark.parametrize(("wanted", "told"), [(JSON, "json"), (NAMED, SCHEMA)])
    async def test_an_answer_in_a_format(
        self,
        server: FakeOllama,
        provider: OllamaProvider,
        wanted: OutputFormat,
        told: Any,
    ) -> None:
        request = wishing(self.DOES_NOT, output_format=wanted)

        assert about(await sent(server, provider, request)) == {"format": told}


class TestGuide:
    async def test_sampling_and_thinking_change_nothing(self) -> None:
        wishes: dict[str, Any] = {**SAMPLING, "top_k": 7, "thinking": budget(2048)}
        guide = GuideProvider(NoManual())

        wished = await outcome(guide.stream(wishing("manual", **wishes)))

        assert wished.events == (await outcome(guide.stream(wishing("manual")))).events
        assert wished.usages == [Usage(0, 0)]

    @pytest.mark.parametrize(
        "wishes", [{"output_format": JSON}, {"stop_sequences": ["guide"]}]
    )
    async def test_what_would_change_its_answer_is_refused_by_name(
        self, wishes: dict[str, Any]
    ) -> None:
        result = await outcome(
            GuideProvider(NoManual()).stream(wishing("manual", **wishes))
        )

        assert isinstance(result.error, ProviderRejectedError)
        assert result.error.detail == f"The guide takes no {next(iter(wishes))}."
        assert result.events == []
