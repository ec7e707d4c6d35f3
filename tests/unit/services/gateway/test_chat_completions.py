import base64
from collections.abc import Mapping
from typing import Any

import pytest

from app.integrations.llm.base import ChatMessage, ChatRequest
from app.services.gateway.chat_completions import CHAT_COMPLETIONS
from app.services.gateway.fields import InvalidFieldError
from app.services.gateway.format import Ask
from tests.unit.services.gateway.chat_asks import (
    HI,
    PNG,
    Json,
    read,
    request,
    text,
    wrong,
)


def content(*parts: Json) -> Any:
    return request({"role": "user", "content": list(parts)}).messages[0].content


def test_a_plain_question_is_read() -> None:
    body = {"model": "anthropic/claude", "messages": [HI]}

    ask = CHAT_COMPLETIONS.read(body)

    assert ask == Ask(
        ChatRequest("anthropic/claude", [ChatMessage("user", [text("Hi")])], tools=[],
                    stop_sequences=[]),
        body,
        stream=False,
        include_usage=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["model", "messages"])
def test_model_and_messages_are_required(name: str) -> None:
    body = {"model": "m", "messages": [HI]}
    del body[name]

    with pytest.raises(InvalidFieldError) as raised:
        CHAT_COMPLETIONS.read(body)

    assert raised.value.errors[0]["path"] == name


def test_a_body_is_an_object() -> None:
    with pytest.raises(InvalidFieldError):
        CHAT_COMPLETIONS.read([HI])  # type: ignore[arg-type] # a client may send it


def test_no_message_is_no_question() -> None:
    with pytest.raises(InvalidFieldError, match="messages: must hold a message"):
        CHAT_COMPLETIONS.read({"model": "m", "messages": []})


def test_instructions_at_the_beginning_are_the_system_text() -> None:
    got = request(
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [text("Be kind."), text("Be true.")]},
        HI,
    )

    assert got.system == "Be brief.\n\nBe kind.\n\nBe true."
    assert got.messages == [ChatMessage("user", [text("Hi")])]


def test_later_instructions_stay_where_they_are() -> None:
    got = request(HI, {"role": "system", "content": "Be brief now."}, HI)

    assert got.system == ""
    assert got.messages == [
        ChatMessage(
            "user",
            [text("Hi"), text("<system>\nBe brief now.\n</system>"), text("Hi")],
        )
    ]


def test_instructions_alone_are_the_question() -> None:
    got = request({"role": "system", "content": "Tell a joke."})

    assert (got.system, got.messages) == (
        "",
        [ChatMessage("user", [text("Tell a joke.")])],
    )


def test_images_come_by_address_or_in_the_address() -> None:
    url = "https://example.com/a.png"

    got = content(
        text("What is it?"),
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": PNG}},
    )

    assert got == [
        text("What is it?"),
        {"type": "image", "source": {"type": "url", "url": url}},
        {
            "type": "image",
            "source": {
                "type": "base64",
                "media_type": "image/png",
                "data": "iVBORw0KGgo=",
            },
        },
    ]


@pytest.mark.parametrize("data", ["data:application/pdf;base64,JVBERi0x", "JVBERi0x"])
def test_a_pdf_is_a_document(data: str) -> None:
    got = content({"type": "file", "file": {"file_data": data, "filename": "a.pdf"}})

    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"}
    assert got == [{"type": "document", "source": source, "title": "a.pdf"}]


def test_a_text_is_a_document() -> None:
    data = base64.b64encode("Grüße".encode()).decode()

    got = content(
        {
            "type": "file",
            "file": {"file_data": f"data:text/markdown;charset=utf-8;base64,{data}"},
        }
    )

    source = {"type": "text", "media_type": "text/plain", "data": "Grüße"}
    assert got == [{"type": "document", "source": source}]


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ({"type": "input_audio", "input_audio": {}}, "type"),
        ({"text": "Hi"}, "type"),
        ({"type": "text"}, "text"),
        ({"type": "text", "text": 7}, "text"),
        ({"type": "text", "text": "Hi", "lang": "en"}, "lang"),
        ({"type": "image_url", "image_url": "https://x"}, "image_url"),
        ({"type": "image_url", "image_url": {"url": "ftp://x"}}, "image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:,x"}}, "image_url.url"),
        (
            {"type": "image_url", "image_url": {"url": PNG, "detail": "x"}},
            "image_url.detail",
        ),
        ({"type": "file", "file": {"file_id": "file-1"}}, "file.file_id"),
        ({"type": "file", "file": {}}, "file.file_data"),
        ({"type": "file", "file": {"file_data": "UEsDBA=="}}, "file.file_data"),
        (
            {"type": "file", "file": {"file_data": "data:image/gif;base64,R0lG"}},
            "file.file_data",
        ),
        (
            {"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}},
            "file.file_data",
        ),
        ("Hi", ""),
    ],
)
def test_a_part_that_cannot_be_said_is_named(part: Any, path: str) -> None:
    message = {"role": "user", "content": [text("Hi"), part]}

    assert wrong(HI, message) == f"messages.1.content.1.{path}".rstrip(".")


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"role": "user"}, "content"),
        ({"role": "user", "content": []}, "content"),
        ({"role": "user", "content": {"text": "Hi"}}, "content"),
        ({"role": "function", "content": "Hi", "name": "f"}, "role"),
        ({"content": "Hi"}, "role"),
        ({"role": "user", "content": "Hi", "mood": "good"}, "mood"),
        ({"role": "assistant"}, "content"),
        ({"role": "assistant", "content": None}, "content"),
        ({"role": "assistant", "content": 7}, "content"),
        ({"role": "assistant", "content": "", "audio": {"id": "a"}}, "audio"),
        ({"role": "assistant", "content": "", "function_call": {}}, "function_call"),
        (
            {"role": "assistant", "content": [{"type": "image_url"}]},
            "content.0.type",
        ),
        ({"role": "tool", "content": "7"}, "tool_call_id"),
        ({"role": "tool", "tool_call_id": "1"}, "content"),
        (
            {
                "role": "system",
                "content": [{"type": "image_url", "image_url": {"url": PNG}}],
            },
            "content.0.type",
        ),
    ],
)
def test_a_message_that_cannot_be_said_is_named(message: Json, path: str) -> None:
    assert wrong(HI, message) == f"messages.1.{path}"


def test_hints_in_messages_are_passed_over() -> None:
    cached = {**text("Hi"), "cache_control": {"type": "ephemeral"}}
    marked = {**text("you"), "prompt_cache_breakpoint": {"mode": "explicit"}}

    got = request({"role": "user", "name": "Ann", "content": [cached, marked]})

    assert got.messages[0].content == [text("Hi"), text("you")]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_has_two_names(name: str) -> None:
    assert request(**{name: 100}).max_tokens == 100


def test_the_lower_of_two_limits_holds() -> None:
    assert request(max_tokens=100, max_completion_tokens=90).max_tokens == 90


def test_sampling_is_read() -> None:
    got = request(temperature=1.5, top_p=0.9)

    assert (got.temperature, got.top_p) == (1.5, 0.9)


@pytest.mark.parametrize(
    ("stop", "sequences"), [("END", ["END"]), (["a", "b"], ["a", "b"]), (None, [])]
)
def test_stop_is_one_or_several(stop: Any, sequences: list[str]) -> None:
    assert request(stop=stop).stop_sequences == sequences


@pytest.mark.parametrize(
    ("effort", "limit", "max_tokens", "budget"),
    [
        ("minimal", None, 4096 + 1024, 1024),
        ("low", None, 4096 + 2048, 2048),
        ("medium", None, 4096 + 4096, 4096),
        ("high", None, 4096 + 8192, 8192),
        ("xhigh", None, 4096 + 16384, 16384),
        ("max", None, 4096 + 24576, 24576),
        ("high", 100_000, 100_000, 8192),
        ("high", 6000, 6000, 3000),
        ("low", 2048, 2048, 1024),
    ],
)
def test_effort_is_a_budget_of_thinking(
    effort: str, limit: int | None, max_tokens: int, budget: int
) -> None:
    got = request(reasoning_effort=effort, max_completion_tokens=limit)

    assert got.max_tokens == max_tokens
    assert got.thinking == {"type": "enabled", "budget_tokens": budget}


def test_a_small_limit_leaves_no_room_for_thinking() -> None:
    assert request(reasoning_effort="high", max_tokens=2047).thinking is None


def test_no_effort_is_no_thinking() -> None:
    assert request(reasoning_effort="none").thinking == {"type": "disabled"}


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json"}),
        (
            {
                "type": "json_schema",
                "json_schema": {
                    "name": "city",
                    "description": "A city.",
                    "strict": True,
                    "schema": {"type": "object"},
                },
            },
            {
                "type": "json_schema",
                "name": "city",
                "schema": {"description": "A city.", "type": "object"},
            },
        ),
    ],
)
def test_the_format_of_the_answer_is_read(told: Json, wanted: Json | None) -> None:
    assert request(response_format=told).output_format == wanted


def test_a_stream_is_asked_for_and_its_usage() -> None:
    ask = read(stream=True, stream_options={"include_usage": True})

    assert (ask.stream, ask.include_usage) == (True, True)


def test_a_stream_s_usage_is_not_told_unasked() -> None:
    ask = read(stream=True, stream_options={"include_obfuscation": False})

    assert (ask.stream, ask.include_usage) == (True, False)


HINTS: Mapping[str, Any] = {
    "metadata": {"job": "7"},
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
    "safety_identifier": "s",
    "service_tier": "default",
    "store": False,
    "user": "u",
}
SAY_NOTHING: Mapping[str, Any] = {
    "audio": None,
    "frequency_penalty": 0,
    "functions": [],
    "logit_bias": {},
    "logprobs": False,
    "modalities": ["text"],
    "n": 1,
    "presence_penalty": 0.0,
    "seed": None,
    "top_logprobs": 0,
    "verbosity": "medium",
}


@pytest.mark.parametrize(("name", "value"), [*HINTS.items(), *SAY_NOTHING.items()])
def test_what_changes_no_answer_is_passed_over(name: str, value: Any) -> None:
    assert request(**{name: value}) == request()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("frequency_penalty", 0.5),
        ("function_call", "auto"),
        ("functions", [{"name": "x"}]),
        ("logit_bias", {"50256": -100}),
        ("logprobs", True),
        ("max_completion_tokens", 0),
        ("max_tokens", 1.5),
        ("messages", "Hi"),
        ("modalities", ["text", "audio"]),
        ("model", 7),
        ("moderation", {"model": "omni-moderation-latest"}),
        ("n", 2),
        ("prediction", {"type": "content", "content": "x"}),
        ("presence_penalty", -1),
        ("reasoning_effort", "huge"),
        ("response_format", "json"),
        ("seed", 0),
        ("service_tier", "flex"),
        ("stop", ""),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop", [1]),
        ("store", True),
        ("stream", "yes"),
        ("temperature", 2.1),
        ("temperature", True),
        ("top_k", 1.5),
        ("top_logprobs", 2),
        ("top_p", -0.1),
        ("verbosity", "low"),
        ("web_search_options", {}),
    ],
)
def test_a_field_that_cannot_be_said_is_named(name: str, value: Any) -> None:
    assert wrong(**{name: value}) == name


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "text", "x": 1}}, "response_format.x"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        ({"stream_options": {"x": 1}}, "stream_options.x"),
        (
            {"stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
        ),
    ],
)
def test_an_inner_field_that_cannot_be_said_is_named(fields: Json, path: str) -> None:
    assert wrong(**fields) == path
