"""Requests of Anthropic's Messages API: each field taken, passed over, or refused."""

from dataclasses import replace
from typing import Any

import pytest

from app.core.config import ModelSettings
from app.integrations.llm.base import (
    ChatMessage,
    ChatRequest,
    Provider,
    Stop,
)
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.http import Http
from app.integrations.llm.ollama import OllamaProvider
from app.integrations.llm.openai import OpenAIProvider
from app.services.gateway.messages import MESSAGES
from tests.fakes.ollama import FakeOllama
from tests.fakes.openai import FakeOpenAI
from tests.unit.services.gateway.asked import (
    CACHED,
    CLOCK,
    FORMAT,
    PNG,
    SCHEMA,
    WANTED,
    Json,
    body,
    read,
    refused,
    text,
)


def test_the_least_request() -> None:
    ask = MESSAGES.read(body())

    assert ask.request == ChatRequest(
        "m", [ChatMessage("user", [text("Hi")])], max_tokens=10, tools=[],
        stop_sequences=[],
    )  # fmt: skip
    assert (ask.stream, ask.body) == (False, body())


def test_fields_that_are_taken_as_they_are() -> None:
    wishes = {"temperature": 0, "top_p": 0.5, "top_k": 3, "stop_sequences": ["a", "b"]}

    ask = MESSAGES.read(body(**wishes, stream=True))

    assert {name: getattr(ask.request, name) for name in wishes} == wishes
    assert ask.stream


@pytest.mark.parametrize(
    "hints",
    [
        CACHED,
        {"metadata": {"user_id": "u"}},
        {"service_tier": "auto"},
        {"service_tier": "standard_only"},
        {"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}},
        {"diagnostics": {"previous_message_id": "msg_1"}},
        {"betas": ["interleaved-thinking-2025-05-14"]},
        {"speed": "standard"},
        {"container": None, "mcp_servers": [], "inference_geo": None},
        {"system": None, "tools": None, "thinking": None, "tool_choice": None},
    ],
)
def test_hints_change_nothing(hints: Json) -> None:
    assert read(**hints) == read()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model": None}, "model: is required"),
        ({"max_tokens": None}, "max_tokens: is required"),
        ({"max_tokens": 0}, "max_tokens: must be an integer, 1 or more"),
        ({"messages": []}, "messages: must hold a message that says something"),
        ({"messages": "Hi"}, "messages: must be a list"),
        ({"messages": ["Hi"]}, "messages.0: must be an object"),
        ({"temperature": 1.5}, "temperature: must be a number between 0 and 1"),
        ({"top_p": -1}, "top_p: must be a number between 0 and 1"),
        ({"top_k": 0.5}, "top_k: must be an integer, 0 or more"),
        ({"stop_sequences": "a"}, "stop_sequences: must be a list"),
        ({"stop_sequences": [""]}, "stop_sequences: must be strings that are not"),
        ({"stream": "yes"}, "stream: must be a boolean"),
        ({"service_tier": "fast"}, "service_tier: must be one of auto, standard_only"),
        ({"container": {"skills": []}}, "container: is not supported for this model"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers: is not supported for this"),
        ({"inference_geo": "us"}, "inference_geo: is not supported for this model"),
        ({"speed": "fast"}, "speed: is not supported for this model here"),
        ({"fallbacks": []}, "fallbacks: is not supported for this model here"),
        ({"thread": {"id": "x"}}, "thread: is not supported for this model here"),
        ({"from_the_future": 1}, "from_the_future: is not supported for this model"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(fields: Json, told: str) -> None:
    assert refused(**fields).startswith(told)


class TestTools:
    def test_their_hints_are_passed_over(self) -> None:
        hints = {"defer_loading": True, "eager_input_streaming": True, **CACHED}
        tool = {**CLOCK, **hints, "type": "custom", "allowed_callers": ["direct"]}

        assert read(tools=[tool, CLOCK]).tools == [CLOCK, CLOCK]

    def test_strictness_and_examples_are_kept(self) -> None:
        bare = {"name": "clock", "input_schema": SCHEMA}

        assert read(tools=[{**bare, "strict": True}]).tools[0]["strict"] is True
        [tool] = read(tools=[{**CLOCK, "input_examples": [{"zone": "UTC"}]}]).tools
        assert tool["description"] == (
            'The time.\n\nExamples of its input: [{"zone":"UTC"}]'
        )

    @pytest.mark.parametrize(
        "kind",
        [
            "web_search_20250305",
            "computer_20251124",
            "bash_20250124",
            "text_editor_20250728",
            "code_execution_20260521",
        ],
    )
    def test_those_that_only_claude_knows_are_refused_by_name(self, kind: str) -> None:
        told = refused(tools=[CLOCK, {"type": kind, "name": "a"}])

        assert told.startswith(f"tools.1.type: {kind!r} is not supported")

    @pytest.mark.parametrize(
        ("tool", "told"),
        [
            ({"name": "a"}, "tools.0.input_schema: is required"),
            ({"input_schema": {}}, "tools.0.name: is required"),
            ({**CLOCK, "a": 1}, "tools.0.a: is not supported for this model here"),
            (
                {**CLOCK, "allowed_callers": ["code_execution_20260120"]},
                "tools.0.allowed_callers: is not supported for this model here",
            ),
        ],
    )
    def test_what_a_tool_cannot_be(self, tool: Json, told: str) -> None:
        assert refused(tools=[tool]) == told

    @pytest.mark.parametrize(
        "choice",
        [
            {"type": "auto"},
            {"type": "any"},
            {"type": "none"},
            {"type": "tool", "name": "clock"},
            {"type": "auto", "disable_parallel_tool_use": True},
        ],
    )
    def test_a_choice_among_them(self, choice: Json) -> None:
        assert read(tools=[CLOCK], tool_choice=choice).tool_choice == choice

    def test_parallel_calls_need_no_word_and_no_tools_no_choice(self) -> None:
        parallel = {"type": "any", "disable_parallel_tool_use": False}

        assert read(tools=[CLOCK], tool_choice=parallel).tool_choice == {"type": "any"}
        assert read(tool_choice={"type": "auto"}).tool_choice is None

    @pytest.mark.parametrize(
        ("choice", "told"),
        [
            ("auto", "tool_choice: must be an object"),
            ({"type": "required"}, "tool_choice.type: must be one of auto, any, tool"),
            ({"type": "tool"}, "tool_choice.name: is required"),
            ({"type": "tool", "name": "a"}, "tool_choice.name: is not the name of one"),
            ({"type": "any"}, "tool_choice.type: needs tools to choose from"),
            (
                {"type": "none", "disable_parallel_tool_use": True},
                "tool_choice.disable_parallel_tool_use: is not supported for this",
            ),
        ],
    )
    def test_what_cannot_be_chosen(self, choice: Any, told: str) -> None:
        assert refused(tool_choice=choice).startswith(told)


class TestOutput:
    @pytest.mark.parametrize(
        ("thinking", "kept"),
        [
            ({"type": "disabled"}, {"type": "disabled"}),
            ({"type": "adaptive", "display": "omitted"}, {"type": "adaptive"}),
            ({"type": "enabled"}, {"type": "adaptive"}),
            ({"type": "enabled", "budget_tokens": 2048, "display": "summarized"},
             {"type": "enabled", "budget_tokens": 2048}),
        ],
    )  # fmt: skip
    def test_how_much_to_think(self, thinking: Json, kept: Json) -> None:
        assert read(thinking=thinking).thinking == kept

    @pytest.mark.parametrize(
        ("thinking", "kept"),
        [
            (None, {"type": "adaptive", "effort": "max"}),
            ({"type": "adaptive"}, {"type": "adaptive", "effort": "max"}),
            ({"type": "disabled"}, {"type": "disabled"}),
            ({"type": "enabled", "budget_tokens": 2048},) * 2,
        ],
    )
    def test_an_effort_is_how_much_to_think(self, thinking: Any, kept: Json) -> None:
        config = {"effort": "max"}

        assert read(thinking=thinking, output_config=config).thinking == kept

    @pytest.mark.parametrize(
        "fields",
        [{"output_config": {"format": FORMAT}}, {"output_format": FORMAT}],
    )
    def test_a_schema_for_the_answer(self, fields: Json) -> None:
        request = read(**fields)

        assert (request.output_format, request.thinking) == (WANTED, None)

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            (
                {"thinking": {"type": "between_tools"}},
                "thinking.type: must be one of enabled, adaptive, disabled",
            ),
            (
                {"thinking": {"type": "enabled", "budget_tokens": 5}},
                "thinking.budget_tokens: must be an integer, 1024 or more",
            ),
            (
                {"thinking": {"type": "disabled", "budget_tokens": 2048}},
                "thinking.budget_tokens: is not supported for this model here",
            ),
            (
                {"output_config": {"effort": "little"}},
                "output_config.effort: must be one of low, medium, high, xhigh, max",
            ),
            (
                {"output_config": {"format": {"type": "json_object"}}},
                "output_config.format.type: must be json_schema",
            ),
            (
                {"output_config": {"task_budget": {"total": 1}}},
                "output_config.task_budget: is not supported for this model here",
            ),
            (
                {"output_config": {"format": FORMAT}, "output_format": FORMAT},
                "output_format: is the old name of output_config.format",
            ),
        ],
    )
    def test_what_cannot_be_asked_for(self, fields: Json, told: str) -> None:
        assert refused(**fields) == told


CLAUDE_CODE: Json = {
    "model": "ollama/llama3.2:latest",
    "max_tokens": 32_000,
    "stream": True,
    "temperature": 1,
    "metadata": {"user_id": "user_abc_account__session_1"},
    "thinking": {"type": "adaptive", "display": "omitted"},
    "output_config": {"effort": "high"},
    "context_management": {
        "edits": [{"type": "clear_thinking_20251015", "keep": "all"}]
    },
    "system": [
        text("x-anthropic-billing-header: cc_version=2.1"),
        {**text("You are Claude Code."), **CACHED},
        {**text("Tools, tone, and so on."), **CACHED},
    ],
    "tools": [
        {
            "name": name,
            "description": f"{name} a file.",
            "input_schema": {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "properties": {"path": {"type": "string"}},
                "required": ["path"],
                "additionalProperties": False,
            },
            "eager_input_streaming": True,
        }
        for name in ("Read", "Edit", "Write", "mcp__docs__search")
    ],
    "messages": [
        {
            "role": "user",
            "content": [
                text("<system-reminder>Today is Friday.</system-reminder>"),
                {**text("What does this picture show?"), **CACHED},
            ],
        },
        {"role": "system", "content": [{**text("Be brief."), **CACHED}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "", "signature": ""},
                text("I look."),
                {"type": "tool_use", "id": "call_1", "name": "Read", "input": {}},
                {"type": "tool_use", "id": "call_2", "name": "Read", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "call_1",
                    "content": "<tool_use_error>No such file</tool_use_error>",
                    "is_error": True,
                },
                {
                    "type": "tool_result",
                    "tool_use_id": "call_2",
                    "content": [{"type": "image", "source": PNG}],
                    **CACHED,
                },
            ],
        },
    ],
}
"""A turn of Claude Code 2.1, after a tool failed and another one gave an image."""


class TestClaudeCode:
    async def test_ollama_takes_its_requests(self) -> None:
        request = MESSAGES.read(CLAUDE_CODE).request
        http = Http(ModelSettings())
        async with FakeOllama() as server:
            settings = ModelSettings(ollama_base_url=server.url)
            provider = OllamaProvider(settings, Catalogue.load(), http)

            await _ask(provider, request, "llama3.2:latest")

        await http.close()
        sent = server.calls[-1].body
        assert [message["role"] for message in sent["messages"]] == [
            "system", "user", "assistant", "tool", "tool", "user",
        ]  # fmt: skip
        assert len(sent["tools"]) == 4
        assert "think" not in sent

    async def test_a_server_of_openais_api_takes_its_requests(self) -> None:
        request = MESSAGES.read(CLAUDE_CODE).request
        http = Http(ModelSettings())
        async with FakeOpenAI() as server:
            settings = ModelSettings(openai_base_url=server.base_url)
            provider = OpenAIProvider(settings, Catalogue.load(), http)

            await _ask(provider, request, "fake-small")

        await http.close()
        sent = server.calls[-1].body
        assert [message["role"] for message in sent["messages"]] == [
            "system", "user", "assistant", "tool", "tool", "user",
        ]  # fmt: skip
        assert sent["reasoning_effort"] == "high"


async def _ask(provider: Provider, request: ChatRequest, model: str) -> None:
    events = [e async for e in provider.stream(replace(request, model=model))]
    assert events[-1] == Stop("end_turn")
