"""Anthropic's messages and errors, as clients read them.

Reference: "Streaming messages" and "Errors" in Anthropic's API documentation. A stream
is message_start, then blocks, one after the other, then message_delta, message_stop;
a block is its start, its deltas and its stop.
"""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import orjson

from app.integrations.llm.base import (
    Citation,
    ProviderEvent,
    RedactedThinking,
    Stop,
    TextDelta,
    ThinkingDelta,
    ToolInputDelta,
    ToolUseStart,
    Usage,
)
from app.services.gateway.format import Ask

Json = dict[str, Any]

_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_TEXT_TAIL = b"}}\n\n"

_ERRORS: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_SERVER_ERROR = 500


def error(problem: Mapping[str, Any]) -> Json:
    """Anthropic's form of an RFC 9457 problem; its message names the wrong fields."""
    status = problem["status"]
    usual = "api_error" if status >= _SERVER_ERROR else "invalid_request_error"
    wrong = [f"{e['path']}: {e['message']}" for e in problem.get("errors") or ()]
    message = "; ".join(wrong) or problem.get("detail") or problem["title"]
    return {
        "type": "error",
        "error": {"type": _ERRORS.get(status, usual), "message": message},
        "request_id": problem.get("request_id"),
    }


class MessagesWriter:
    """The frames of a delta of text are written once, but for the text itself."""

    def __init__(self, ask: Ask, model: str) -> None:
        self._message: Json = {
            "id": f"msg_{uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": model,
        }
        thinking = ask.body.get("thinking") or {}
        self._omits_thinking = thinking.get("display") == "omitted"
        self._started = False
        self._usage = Usage(0, 0)
        self._stop = Stop("end_turn")
        self._blocks: list[Json] = []
        self._open = ""  # the type of the last block, while more of it may come
        self._pieces: list[str] = []  # of that block
        self._head = b""  # of a delta in it, up to its text
        self._sources: list[str] = []

    def write(self, event: ProviderEvent) -> bytes:
        if type(event) is TextDelta and self._open == "text":
            self._pieces.append(event.text)
            return self._head + orjson.dumps(event.text) + _TEXT_TAIL
        return self._other(event)

    def fail(self, problem: Mapping[str, Any]) -> bytes:
        return _frame(error(problem))

    def whole(self) -> Json:
        return {
            **self._message,
            "content": self._blocks,
            "stop_reason": self._stop.reason,
            "stop_sequence": self._stop.sequence,
            "usage": self._told_usage(),
        }

    def _other(self, event: ProviderEvent) -> bytes:
        frames = b""
        match event:
            case Usage():
                self._usage = event
            case TextDelta():
                frames = self._text() + self.write(event)
            case ThinkingDelta():
                frames = self._thinking(event)
            case RedactedThinking():
                frames = self._begin({"type": "redacted_thinking", "data": event.data})
            case ToolUseStart():
                call = {"type": "tool_use", "id": event.id, "name": event.name}
                frames = self._begin({**call, "input": {}}) + self._input(event.input)
            case ToolInputDelta():
                frames = self._input(event.json)
            case Citation():
                frames = self._text() + self._citation(event)
            case Stop():
                frames = self._end(event)
        return frames

    def _text(self) -> bytes:
        """The start of a block of text, where none is open."""
        if self._open == "text":
            return b""
        return self._begin({"type": "text", "text": ""})

    def _thinking(self, event: ThinkingDelta) -> bytes:
        """A signature ends a block. What is omitted leaves a sign of life."""
        frames = b""
        if self._open != "thinking":
            block = {"type": "thinking", "thinking": "", "signature": ""}
            frames = self._begin(block)
        if event.text and self._omits_thinking:
            frames += _PING
        elif event.text:
            self._pieces.append(event.text)
            delta = {"type": "thinking_delta", "thinking": event.text}
            frames += self._delta(delta)
        if event.signature:
            self._blocks[-1]["signature"] = event.signature
            delta = {"type": "signature_delta", "signature": event.signature}
            frames += self._delta(delta) + self._close()
        return frames

    def _input(self, json: str) -> bytes:
        if not json:
            return b""
        self._pieces.append(json)
        return self._delta({"type": "input_json_delta", "partial_json": json})

    def _citation(self, event: Citation) -> bytes:
        """Its sources are numbered as they come: the provider may know others."""
        if event.source not in self._sources:
            self._sources.append(event.source)
        citation = {
            "type": "char_location",
            "cited_text": event.quote,
            "document_index": self._sources.index(event.source),
            "document_title": event.source,
            "start_char_index": event.start,
            "end_char_index": event.end,
            "file_id": None,
        }
        self._blocks[-1].setdefault("citations", []).append(citation)
        return self._delta({"type": "citations_delta", "citation": citation})

    def _begin(self, block: Json) -> bytes:
        frames = self._start() + self._close()
        index = len(self._blocks)
        self._open = block["type"]
        self._head = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta",'
            b'"index":%d,"delta":{"type":"text_delta","text":' % index
        )
        frames += _frame(
            {"type": "content_block_start", "index": index, "content_block": block}
        )
        self._blocks.append(block)
        return frames

    def _delta(self, delta: Json) -> bytes:
        index = len(self._blocks) - 1
        return _frame({"type": "content_block_delta", "index": index, "delta": delta})

    def _close(self) -> bytes:
        """The end of the open block, if one is."""
        if not self._open:
            return b""
        block, said = self._blocks[-1], "".join(self._pieces)
        match self._open:
            case "text" | "thinking" as kind:
                block[kind] = said
            case "tool_use":
                block["input"] = _object(said)
        self._open = ""
        self._pieces = []
        return _frame({"type": "content_block_stop", "index": len(self._blocks) - 1})

    def _start(self) -> bytes:
        """The first frame, which tells the input's tokens as far as they are known."""
        if self._started:
            return b""
        self._started = True
        message = {
            **self._message,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._told_usage(),
        }
        return _frame({"type": "message_start", "message": message})

    def _end(self, event: Stop) -> bytes:
        self._stop = event
        delta = {"stop_reason": event.reason, "stop_sequence": event.sequence}
        return (
            self._start()
            + self._close()
            + _frame(
                {"type": "message_delta", "delta": delta, "usage": self._told_usage()}
            )
            + _frame({"type": "message_stop"})
        )

    def _told_usage(self) -> Json:
        told = self._usage
        thought = {"thinking_tokens": told.thinking_tokens}
        return {
            "input_tokens": told.input_tokens,
            "cache_creation_input_tokens": told.cache_write_tokens,
            "cache_read_input_tokens": told.cache_read_tokens,
            "output_tokens": told.output_tokens,
            **({"output_tokens_details": thought} if told.thinking_tokens else {}),
        }


def _frame(event: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))


def _object(json: str) -> Json:
    """A tool's input. What is none, as one that was cut off, is kept as it is.

    Under a name that Anthropic's documentation gives for that ("Fine-grained tool
    streaming").
    """
    try:
        value = orjson.loads(json or "{}")
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": json}
