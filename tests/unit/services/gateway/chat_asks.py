"""Calls of chat completions as clients make them, read."""

from typing import Any

import pytest

from app.integrations.llm.base import ChatRequest
from app.services.gateway.chat_completions import CHAT_COMPLETIONS
from app.services.gateway.fields import InvalidFieldError
from app.services.gateway.format import Ask

Json = dict[str, Any]

HI: Json = {"role": "user", "content": "Hi"}
WEATHER: Json = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
PNG = "data:image/png;base64,iVBORw0KGgo="


def read(*messages: Json, **fields: Any) -> Ask:
    return CHAT_COMPLETIONS.read(
        {"model": "anthropic/claude", "messages": list(messages or [HI]), **fields}
    )


def request(*messages: Json, **fields: Any) -> ChatRequest:
    return read(*messages, **fields).request


def wrong(*messages: Json, **fields: Any) -> str:
    """The path that the refusal names."""
    with pytest.raises(InvalidFieldError) as raised:
        read(*messages, **fields)
    return raised.value.errors[0]["path"]


def text(words: str) -> Json:
    return {"type": "text", "text": words}
