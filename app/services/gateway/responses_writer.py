"""OpenAI's responses, as clients read them.

Reference: "The response object" and "Streaming events" in OpenAI's API documentation.
"""

import time
from collections.abc import Mapping
from secrets import token_hex
from typing import Any

import orjson

from app.integrations.llm.base import (
    Citation,
    ProviderEvent,
    RedactedThinking,
    Stop,
    StopReason,
    TextDelta,
    ThinkingDelta,
    ToolInputDelta,
    ToolUseStart,
    Usage,
)
from app.services.gateway.format import Ask
from app.services.gateway.responses_items import (
    REDACTED,
    SIGNATURE,
    Call,
    Item,
    Message,
    Thought,
    event,
)

Json = dict[str, Any]

_INCOMPLETE: Mapping[StopReason, str] = {
    "max_tokens": "max_output_tokens",
    "refusal": "content_filter",
}
_SERVER_ERROR, _RATE_LIMITED = 500, 429


class ResponseWriter:
    """One item grows at a time; what in a delta is the same in each is written once."""

    def __init__(self, ask: Ask, model: str) -> None:
        self._token = token_hex(16)
        self._response: Json = {
            "id": f"resp_{self._token}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "model": model,
            **_repeated(ask.body),
            "output": [],
            "usage": None,
        }
        self._begun = False
        self._events = 0
        self._item: Item | None = None
        self._head = self._tail = b""
        self._usage = Usage(0, 0)

    def write(self, told: ProviderEvent) -> bytes:
        if type(told) is TextDelta and type(self._item) is Message:
            return self._piece(self._item, told.text)
        if type(told) is Usage:
            self._usage = told
            return b""
        return self._opening() + self._other(told)

    def fail(self, problem: Mapping[str, Any]) -> bytes:
        frames = self._opening()
        self._keep("incomplete")
        told = problem.get("detail") or problem["title"]
        self._end("failed", error={"code": _failure(problem), "message": told})
        return frames + self._frame(event("failed", response=self._response))

    def whole(self) -> Json:
        return self._response

    def _opening(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        created = self._frame(event("created", response=self._response))
        return created + self._frame(event("in_progress", response=self._response))

    def _other(self, told: ProviderEvent) -> bytes:
        frames = b""
        match told:
            case ToolInputDelta() if self._item is not None:
                frames = self._piece(self._item, told.json)
            case ThinkingDelta():
                frames = self._thinking(told)
            case TextDelta():
                frames = self._begin(message := Message())
                frames += self._piece(message, told.text)
            case ToolUseStart():
                frames = self._begin(call := Call(told))
                frames += self._piece(call, told.input) if told.input else b""
            case RedactedThinking():
                thought = Thought(readable=False, sealed=REDACTED + told.data)
                frames = self._begin(thought) + self._close()
            case Citation():
                frames = self._citation(told)
            case Stop():
                frames = self._stop(told)
        return frames

    def _citation(self, told: Citation) -> bytes:
        frames, message = b"", self._item
        if not isinstance(message, Message):
            frames = self._begin(message := Message())
        return frames + self._frame(message.cite(told))

    def _thinking(self, told: ThinkingDelta) -> bytes:
        frames, thought = b"", self._item
        if not isinstance(thought, Thought):
            thought = Thought(readable=bool(told.text))
            frames = self._begin(thought)
        if told.text:
            frames += self._piece(thought, told.text)
        if told.signature:
            thought.sealed = SIGNATURE + told.signature
            frames += self._close()
        return frames

    def _stop(self, told: Stop) -> bytes:
        if reason := _INCOMPLETE.get(told.reason):
            frames = self._close("incomplete")
            self._end("incomplete", incomplete_details={"reason": reason})
        else:
            frames = self._close()
            self._end("completed")
        last = event(self._response["status"], response=self._response)
        return frames + self._frame(last)

    def _end(self, status: str, **members: Json) -> None:
        usage = _usage(self._usage)
        self._response |= {"status": status, "usage": usage, **members}

    def _begin(self, item: Item) -> bytes:
        frames = self._close()
        item.take_place(self._token, len(self._response["output"]))
        self._item = item
        place = orjson.dumps({"type": item.delta, **item.place})[:-1]
        self._head = b'event: %b\ndata: %b,"delta":' % (item.delta.encode(), place)
        self._tail = item.tail + b',"sequence_number":'
        return frames + b"".join(map(self._frame, item.opening()))

    def _piece(self, item: Item, piece: str) -> bytes:
        item.pieces.append(piece)
        number = self._events
        self._events += 1
        told = orjson.dumps(piece)
        return b"%b%b%b%d}\n\n" % (self._head, told, self._tail, number)

    def _close(self, status: str = "completed") -> bytes:
        item = self._item
        if item is None:
            return b""
        # The arguments of a call that came without any: clients parse them as JSON. But
        # a call that was cut off must not look like one of those.
        bare = isinstance(item, Call) and not item.pieces
        frames = self._piece(item, "{}") if bare and status == "completed" else b""
        frames += b"".join(map(self._frame, item.closing(status)))
        self._keep(status)
        return frames

    def _keep(self, status: str) -> None:
        if self._item is not None:
            self._response["output"].append(self._item.state(status))
            self._item = None

    def _frame(self, told: Json) -> bytes:
        told["sequence_number"] = self._events
        self._events += 1
        return b"event: %b\ndata: %b\n\n" % (told["type"].encode(), orjson.dumps(told))


def _repeated(body: Mapping[str, Any]) -> Json:
    """What a response repeats of what it was asked for, or says of what holds then."""
    told: Json = {
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        "user": None,
    }
    given = {name: body[name] for name in told if body.get(name) is not None}
    return {**told, **given, "service_tier": "default"}


def _usage(told: Usage) -> Json:
    """OpenAI's input holds what was read from a cache and written to it.

    Thinking is part of the output; 0 stands for what its provider did not tell, too.
    """
    prompt = told.input_tokens + told.cache_read_tokens + told.cache_write_tokens
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": told.cache_read_tokens,
            "cache_write_tokens": told.cache_write_tokens,
        },
        "output_tokens": told.output_tokens,
        "output_tokens_details": {"reasoning_tokens": told.thinking_tokens},
        "total_tokens": prompt + told.output_tokens,
    }


def _failure(problem: Mapping[str, Any]) -> str:
    """One of OpenAI's few codes for a response that failed."""
    status = problem["status"]
    if status == _RATE_LIMITED or problem.get("code") == "provider_throttled":
        return "rate_limit_exceeded"
    return "server_error" if status >= _SERVER_ERROR else "invalid_prompt"
