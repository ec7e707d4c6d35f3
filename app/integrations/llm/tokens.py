"""Estimates of token counts, where a provider has not told its own."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from app.integrations.llm.base import Block, ChatRequest

_MESSAGE_OVERHEAD = 4
"""Tokens for a message's role and borders."""

IMAGE_TOKENS = 1600
"""What Claude counts for the largest image that it does not shrink."""

DOCUMENT_TOKENS = 3000
"""What Claude counts for a page of a PDF, at the most."""

DOCUMENT_CHARS_A_TOKEN = 64
"""Of a PDF's base64: a guess, for only who parses it can count its pages."""


def estimate_tokens(text: str) -> int:
    """A token for every 4 bytes of UTF-8, rounded up.

    That is the usual rule of 4 characters for English; counting bytes keeps it from
    being several times too low for scripts whose characters are tokens of their own.
    """
    return (_bytes(text) + 3) // 4


def estimate_input(request: ChatRequest) -> int:
    """The tokens that a request sends: its text, tools, images and documents.

    Providers say the schema of an answer to the model, as they do those of tools.
    """
    tools = json.dumps(list(request.tools)) if request.tools else ""
    schema = (request.output_format or {}).get("schema")
    return (
        estimate_tokens(request.system)
        + estimate_tokens(tools)
        + estimate_tokens(json.dumps(schema) if schema else "")
        + sum(
            _MESSAGE_OVERHEAD + estimate_blocks(message.content)
            for message in request.messages
        )
    )


def estimate_body(body: Mapping[str, Any]) -> int:
    """The same of a body of the Messages API, where a text may stand for its block.

    Raises KeyError, TypeError or AttributeError for one of another shape.
    """
    contents = [body.get("system") or "", *(m["content"] for m in body["messages"])]
    return (
        estimate_tokens(json.dumps(body["tools"]) if body.get("tools") else "")
        + _MESSAGE_OVERHEAD * len(body["messages"])
        + sum(
            estimate_tokens(one) if isinstance(one, str) else estimate_blocks(one)
            for one in contents
        )
    )


def estimate_blocks(content: Iterable[Block]) -> int:
    return sum(map(_of_block, content))


def _of_block(block: Block) -> int:
    match block.get("type"):
        case "text":  # nearly all of them
            return estimate_tokens(block["text"])
        case "image":
            return IMAGE_TOKENS
        case "document" if block["source"].get("type") != "text":
            size = len(str(block["source"].get("data", "")))
            guess = DOCUMENT_TOKENS + size // DOCUMENT_CHARS_A_TOKEN
            return max(guess, DOCUMENT_TOKENS * getattr(block, "pages", 0))
        case "tool_result" if isinstance(block.get("content"), list):
            return estimate_blocks(block["content"])
    return estimate_tokens(_text(block))


def _text(block: Block) -> str:
    """What a block says in so many words; another model's thinking says nothing."""
    match block.get("type"):
        case "document":
            return str(block["source"]["data"])
        case "tool_use":
            return json.dumps(block.get("input", {}))
        case "tool_result":
            return str(block.get("content", ""))
    return ""


def _bytes(text: str) -> int:
    return len(text if text.isascii() else text.encode("utf-8", "replace"))


class TokenTally:
    """The same estimate for a text that comes in pieces, which are not kept."""

    def __init__(self) -> None:
        self._size = 0

    def add(self, text: str) -> None:
        self._size += _bytes(text)

    @property
    def tokens(self) -> int:
        return (self._size + 3) // 4
