"""That nothing is dropped in silence: what each format makes of every field there is.

The fields are those that the SDKs of OpenAI and Anthropic type: a newer SDK brings new
ones in here by itself.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from anthropic.types import MessageCountTokensParams
from anthropic.types.beta.message_create_params import (
    MessageCreateParamsBase as BetaMessageParams,
)
from anthropic.types.message_create_params import (
    MessageCreateParamsBase as MessageParams,
)
from openai.types import EmbeddingCreateParams
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from app.services.gateway import embeddings
from app.services.gateway.chat_completions import CHAT_COMPLETIONS
from app.services.gateway.fields import InvalidFieldError
from app.services.gateway.messages import MESSAGES
from app.services.gateway.responses import RESPONSES

Json = dict[str, Any]
Read = Callable[[Mapping[str, Any]], Any]

ODD = {"odd": True}
"""What no field takes but one that is passed over."""
CACHED = {"cache_control": {"type": "ephemeral"}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
PNG = {"type": "base64", "media_type": "image/png", "data": "aWc="}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}
URL = "https://example.com/a.png"
FUNCTION = {"name": "f", "description": "F.", "parameters": SCHEMA, "strict": True}
JSON_SCHEMA = {"name": "answer", "description": "A.", "schema": SCHEMA, "strict": True}

OPENAI_HINTS = {
    "metadata", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
    "safety_identifier", "user",
}  # fmt: skip

CHAT: Json = {
    "model": "m",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Hi"},
                {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
                {"type": "file", "file": {"file_data": "JVBERi0=", "filename": "a"}},
            ],
        },
        {
            "role": "assistant",
            "content": "I call.",
            "tool_calls": [
                {
                    "id": "1",
                    "type": "function",
                    "function": {"name": "f", "arguments": "{}"},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "done"},
    ],
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": JSON_SCHEMA},
    "stream": True,
    "stream_options": {"include_usage": True},
}
RESPONSE: Json = {
    "model": "m",
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Hi"},
                {"type": "input_image", "image_url": URL, "detail": "low"},
                {"type": "input_file", "file_data": "JVBERi0=", "filename": "a"},
            ],
        },
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "done"},
    ],
    "tools": [{"type": "function", **FUNCTION}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", **JSON_SCHEMA}},
    "reasoning": {"effort": "low"},
    "stream_options": {"include_obfuscation": False},
}
MESSAGE: Json = {
    "model": "m",
    "max_tokens": 100,
    "system": [{"type": "text", "text": "Be brief.", **CACHED}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Hi"},
                {"type": "image", "source": PNG},
                {"type": "document", "source": PDF, "title": "a"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "tool_use", "id": "1", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "1",
                    "content": [{"type": "text", "text": "done"}],
                }
            ],
        },
    ],
    "tools": [{"name": "f", "description": "F.", "input_schema": SCHEMA}],
    "tool_choice": {"type": "tool", "name": "f"},
    "thinking": {"type": "adaptive"},
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
}
FREE = {"cache_control", "input_schema", "parameters", "schema"}
"""Objects whose members are whoever wrote them's, and what is passed over whole."""


def taken(read: Read, body: Json) -> bool:
    try:
        read(body)
    except InvalidFieldError:
        return False
    return True


@pytest.mark.parametrize(
    ("read", "body", "params", "hints"),
    [
        (CHAT_COMPLETIONS.read, CHAT, CompletionCreateParamsBase, OPENAI_HINTS),
        (
            RESPONSES.read,
            RESPONSE,
            ResponseCreateParamsBase,
            {*OPENAI_HINTS, "max_tool_calls"},
        ),
        (
            MESSAGES.read,
            MESSAGE,
            MessageParams,
            {"cache_control", "diagnostics", "metadata"},
        ),
        (
            MESSAGES.read,
            MESSAGE,
            BetaMessageParams,
            {"betas", "cache_control", "context_management", "diagnostics", "metadata"},
        ),
        (MESSAGES.read, MESSAGE, MessageCountTokensParams, {"cache_control"}),
        (
            embeddings.read,
            {"model": "m", "input": "a"},
            EmbeddingCreateParams,
            {"user"},
        ),
    ],
)
def test_a_field_is_understood_or_refused_but_for_hints(
    read: Read, body: Json, params: type, hints: set[str]
) -> None:
    assert taken(read, body)

    passed_over = {
        name
        for kind in params.__mro__
        for name in getattr(kind, "__annotations__", ())
        if taken(read, {**body, name: ODD})
    }
    assert passed_over == hints


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (CHAT_COMPLETIONS.read, CHAT),
        (RESPONSES.read, RESPONSE),
        (MESSAGES.read, MESSAGE),
    ],
)
def test_an_unknown_member_of_any_object_is_refused(read: Read, body: Json) -> None:
    dropped = []
    for path, one in objects(body):
        one["surprise"] = 1
        if taken(read, body):
            dropped.append(path)
        del one["surprise"]

    assert not dropped
    assert taken(read, body)


def objects(value: Any, path: str = "") -> Iterator[tuple[str, Json]]:
    """Those in a body, itself among them, that have no members but known ones."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from objects(item, f"{path}.{number}")
    elif isinstance(value, dict):
        # What a tool is called with is its own matter.
        free = {*FREE, "input"} if value.get("type") == "tool_use" else FREE
        yield path, value
        for name, member in list(value.items()):
            if name not in free:
                yield from objects(member, f"{path}.{name}")
