from collections.abc import Mapping
from typing import Any

import pytest

from app.integrations.llm.base import ChatMessage, ChatRequest
from app.services.gateway.fields import InvalidFieldError
from app.services.gateway.format import Ask
from app.services.gateway.responses import RESPONSES
from tests.unit.services.gateway.transcripts import ANSWERS, whole

Json = dict[str, Any]

HI: Json = {"role": "user", "content": "Hi"}
WEATHER: Json = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}
PNG = "data:image/png;base64,iVBORw0KGgo="
CALL: Json = {
    "type": "function_call",
    "id": "fc_1",
    "status": "completed",
    "call_id": "call_1",
    "name": "weather",
    "arguments": '{"city":"Rome"}',
}


def read(*items: Json, **fields: Any) -> Ask:
    body = {"model": "anthropic/claude", "input": list(items or [HI]), **fields}
    return RESPONSES.read(body)


def request(*items: Json, **fields: Any) -> ChatRequest:
    return read(*items, **fields).request


def wrong(*items: Json, **fields: Any) -> str:
    """The path that the refusal names."""
    with pytest.raises(InvalidFieldError) as raised:
        read(*items, **fields)
    return raised.value.errors[0]["path"]


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def test_a_plain_question_is_read() -> None:
    body = {"model": "anthropic/claude", "input": "Hi"}

    ask = RESPONSES.read(body)

    assert ask == Ask(
        ChatRequest("anthropic/claude", [ChatMessage("user", [text("Hi")])], tools=[]),
        body,
        stream=False,
    )


@pytest.mark.parametrize("name", ["model", "input"])
def test_model_and_input_are_required(name: str) -> None:
    body = {"model": "m", "input": "Hi"}
    del body[name]

    with pytest.raises(InvalidFieldError) as raised:
        RESPONSES.read(body)

    assert raised.value.errors[0]["path"] == name


def test_no_item_is_no_question() -> None:
    with pytest.raises(InvalidFieldError, match="input: must hold a message"):
        RESPONSES.read({"model": "m", "input": []})


def test_instructions_come_before_those_of_the_input() -> None:
    developer = {"role": "developer", "content": "Be kind."}
    later = {"role": "system", "content": [{"type": "input_text", "text": "Go on."}]}

    got = request(developer, HI, later, instructions="Be brief.")

    assert got.system == "Be brief.\n\nBe kind."
    assert got.messages == [
        ChatMessage("user", [text("Hi"), text("<system>\nGo on.\n</system>")])
    ]


def test_parts_of_messages_are_read() -> None:
    url = "https://example.com/a.png"
    pdf = "data:application/pdf;base64,JVBERi0x"

    got = request(
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is it?"},
                {"type": "input_image", "image_url": url, "detail": "high"},
                {"type": "input_image", "image_url": PNG, "detail": "auto"},
                {"type": "input_file", "file_data": pdf, "filename": "a.pdf"},
            ],
        }
    )

    image = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    file = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"}
    assert got.messages[0].content == [
        text("What is it?"),
        {"type": "image", "source": {"type": "url", "url": url}},
        {"type": "image", "source": image},
        {"type": "document", "source": file, "title": "a.pdf"},
    ]


def test_an_answer_in_several_items_is_one_message() -> None:
    got = request(
        HI,
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "phase": "commentary",
            "content": [
                {"type": "output_text", "text": "I look.", "annotations": []},
                {"type": "refusal", "refusal": "Or not."},
                {"type": "output_text", "text": "", "logprobs": []},
            ],
        },
        CALL,
        {**CALL, "call_id": "call_2", "arguments": ""},
        {"type": "function_call_output", "call_id": "call_1", "output": "Sunny"},
        {
            "type": "function_call_output",
            "call_id": "call_2",
            "output": [{"type": "input_text", "text": "Rain"}],
        },
    )

    use = {"type": "tool_use", "name": "weather"}
    assert got.messages[1:] == [
        ChatMessage(
            "assistant",
            [
                text("I look."),
                text("Or not."),
                {**use, "id": "call_1", "input": {"city": "Rome"}},
                {**use, "id": "call_2", "input": {}},
            ],
        ),
        ChatMessage(
            "user",
            [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "Sunny"},
                {
                    "type": "tool_result",
                    "tool_use_id": "call_2",
                    "content": [text("Rain")],
                },
            ],
        ),
    ]


def test_thinking_comes_back_as_its_model_signed_it() -> None:
    """Else Claude goes on from a tool's result no more."""
    answer = whole(RESPONSES.writer(read(), "claude"), ANSWERS["thinking"])

    got = request(HI, *answer["output"], HI)

    assert got.messages[1].content == [
        {"type": "thinking", "thinking": "Let me see.", "signature": "c2lnbmVk"},
        {"type": "redacted_thinking", "data": "c2VjcmV0"},
        text("Yes."),
    ]


@pytest.mark.parametrize("sealed", [None, "", "gAAAAABo"])
def test_the_thinking_of_others_is_passed_over(sealed: str | None) -> None:
    summary = [{"type": "summary_text", "text": "Hm."}]
    thought = {"type": "reasoning", "id": "rs_1", "summary": summary}

    got = request(HI, {**thought, "encrypted_content": sealed}, HI)

    assert got.messages == [ChatMessage("user", [text("Hi"), text("Hi")])]


@pytest.mark.parametrize(
    ("item", "path"),
    [
        ({"type": "item_reference", "id": "msg_1"}, "type"),
        ({"type": "web_search_call", "id": "ws_1"}, "type"),
        ({"role": "tool", "content": "x"}, "role"),
        ({"content": "Hi"}, "role"),
        ({"role": "user"}, "content"),
        ({"role": "user", "content": []}, "content"),
        ({"role": "user", "content": 7}, "content"),
        ({"role": "user", "content": "Hi", "mood": "good"}, "mood"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "content.0.type"),
        (
            {"role": "user", "content": [{"type": "input_text"}]},
            "content.0.text",
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "file_id": "f"}]},
            "content.0.file_id",
        ),
        (
            {"role": "user", "content": [{"type": "input_file", "file_id": "f"}]},
            "content.0.file_id",
        ),
        (
            {"role": "user", "content": [{"type": "input_file", "file_url": "u"}]},
            "content.0.file_url",
        ),
        (
            {
                "role": "assistant",
                "content": [{"type": "input_image", "image_url": PNG}],
            },
            "content.0.type",
        ),
        ({**CALL, "arguments": "{"}, "arguments"),
        ({**CALL, "namespace": "n"}, "namespace"),
        ({**CALL, "call_id": None}, "call_id"),
        ({"type": "function_call_output", "call_id": "1"}, "output"),
        ({"type": "function_call_output", "output": "x"}, "call_id"),
        (
            {"type": "reasoning", "summary": [{"type": "other", "text": "x"}]},
            "summary.0.type",
        ),
    ],
)
def test_an_item_that_cannot_be_said_is_named(item: Json, path: str) -> None:
    assert wrong(HI, item) == f"input.1.{path}"


def test_tools_are_read() -> None:
    got = request(tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)

    assert got.tools == [
        {
            "name": "weather",
            "description": "Tells the weather.",
            "input_schema": WEATHER["parameters"],
            "strict": True,
        }
    ]
    assert got.tool_choice == {"type": "any", "disable_parallel_tool_use": True}


def test_a_tool_can_be_chosen_by_name() -> None:
    got = request(tools=[WEATHER], tool_choice={"type": "function", "name": "weather"})

    assert got.tool_choice == {"type": "tool", "name": "weather"}


@pytest.mark.parametrize(
    ("tool", "path"),
    [
        ({"type": "web_search"}, "type"),
        ({"type": "mcp", "server_label": "x"}, "type"),
        ({"name": "x"}, "type"),
        ({"type": "function"}, "name"),
        ({**WEATHER, "defer_loading": True}, "defer_loading"),
        ({**WEATHER, "output_schema": {}}, "output_schema"),
        ({**WEATHER, "async": True}, "async"),
        ({**WEATHER, "allowed_callers": ["programmatic"]}, "allowed_callers"),
        ({**WEATHER, "x": 1}, "x"),
    ],
)
def test_a_tool_that_cannot_be_said_is_named(tool: Json, path: str) -> None:
    assert wrong(tools=[WEATHER, tool]) == f"tools.1.{path}"


def test_limit_and_sampling_are_read() -> None:
    ask = read(max_output_tokens=100, temperature=1.5, top_p=0.9, stream=True)

    assert (ask.stream, ask.include_usage) == (True, True)
    got = ask.request
    assert (got.max_tokens, got.temperature, got.top_p) == (100, 1.5, 0.9)


def test_effort_is_a_budget_of_thinking() -> None:
    got = request(reasoning={"effort": "low", "summary": "auto"})

    assert got.thinking == {"type": "enabled", "budget_tokens": 2048}


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ({}, None),
        ({"format": {"type": "text"}, "verbosity": "medium"}, None),
        ({"format": {"type": "json_object"}}, {"type": "json"}),
        (
            {
                "format": {
                    "type": "json_schema",
                    "name": "city",
                    "schema": {"type": "object"},
                    "strict": True,
                }
            },
            {"type": "json_schema", "name": "city", "schema": {"type": "object"}},
        ),
    ],
)
def test_the_format_of_the_answer_is_read(told: Json, wanted: Json | None) -> None:
    assert request(text=told).output_format == wanted


SAY_NOTHING: Mapping[str, Any] = {
    "background": False,
    "context_management": [],
    "conversation": None,
    "include": ["reasoning.encrypted_content", "web_search_call.results"],
    "max_tool_calls": 3,
    "metadata": {"job": "7"},
    "previous_response_id": None,
    "prompt_cache_key": "k",
    "reasoning": {"mode": "standard", "context": "auto"},
    "safety_identifier": "s",
    "service_tier": "auto",
    "store": False,
    "stream_options": {"include_obfuscation": False},
    "top_logprobs": 0,
    "truncation": "disabled",
    "user": "u",
}


@pytest.mark.parametrize(("name", "value"), SAY_NOTHING.items())
def test_what_changes_no_answer_is_passed_over(name: str, value: Any) -> None:
    assert request(**{name: value}) == request()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("background", True),
        ("context_management", [{"type": "compaction"}]),
        ("conversation", "conv_1"),
        ("input", 7),
        ("instructions", ["x"]),
        ("max_output_tokens", 0),
        ("messages", [HI]),
        ("moderation", {"model": "omni-moderation-latest"}),
        ("previous_response_id", "resp_1"),
        ("prompt", {"id": "pmpt_1"}),
        ("service_tier", "priority"),
        ("store", True),
        ("temperature", 3),
        ("top_logprobs", 1),
        ("truncation", "auto"),
    ],
)
def test_a_field_that_cannot_be_said_is_named(name: str, value: Any) -> None:
    assert wrong(**{name: value}) == name


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"include": ["message.output_text.logprobs"]}, "include.0"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
        ({"reasoning": {"x": 1}}, "reasoning.x"),
        ({"stream_options": {"x": 1}}, "stream_options.x"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"text": {"x": 1}}, "text.x"),
        ({"tool_choice": {"type": "web_search_preview"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
    ],
)
def test_an_inner_field_that_cannot_be_said_is_named(fields: Json, path: str) -> None:
    assert wrong(**fields) == path
