"""Requests of Anthropic's Messages API, as the tests make and read them."""

from typing import Any

import pytest

from app.integrations.llm.base import Block, ChatRequest
from app.services.gateway.fields import InvalidFieldError
from app.services.gateway.messages import MESSAGES

Json = dict[str, Any]

HI: Json = {"role": "user", "content": "Hi"}
CACHED: Json = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
PNG: Json = {"type": "base64", "media_type": "image/png", "data": "aWc="}
PDF: Json = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}
NOTE: Json = {"type": "text", "media_type": "text/plain", "data": "A note."}
SCHEMA: Json = {"type": "object", "properties": {"zone": {"type": "string"}}}
CLOCK: Json = {"name": "clock", "description": "The time.", "input_schema": SCHEMA}
FORMAT: Json = {"type": "json_schema", "schema": SCHEMA}
WANTED: Json = {"type": "json_schema", "name": "answer", "schema": SCHEMA}


def text(words: str) -> Block:
    return {"type": "text", "text": words}


def body(**fields: Any) -> Json:
    return {"model": "m", "max_tokens": 10, "messages": [HI], **fields}


def read(**fields: Any) -> ChatRequest:
    return MESSAGES.read(body(**fields)).request


def user(*blocks: Json) -> list[Json]:
    return [{"role": "user", "content": list(blocks)}]


def given(*blocks: Json) -> list[Block]:
    """What becomes of blocks of the user's."""
    [message] = read(messages=user(*blocks)).messages
    return list(message.content)


def refused(**fields: Any) -> str:
    with pytest.raises(InvalidFieldError) as caught:
        MESSAGES.read(body(**fields))
    return caught.value.detail
