"""OpenAI's chat completions, as clients read them.

Reference: "Chat completion object" and "Chat completion chunk object" in OpenAI's API
documentation. `reasoning_content` is no field of OpenAI's: DeepSeek and vLLM tell
thinking there, and clients know it. There is no place for quotes from a source, for a
thought's signature, or for thinking that only the provider can read.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import orjson

from app.integrations.llm.base import (
    ProviderEvent,
    Stop,
    StopReason,
    TextDelta,
    ThinkingDelta,
    ToolInputDelta,
    ToolUseStart,
    Usage,
)
from app.services.gateway.format import Ask
from app.services.gateway.openai import error

Json = dict[str, Any]

_DONE = b"data: [DONE]\n\n"
_REASONS: Mapping[StopReason, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_CUT_OFF: tuple[StopReason, ...] = ("max_tokens", "refusal")


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    pieces: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)


class ChatCompletionWriter:
    """All but a chunk's delta is the same in each, and written once."""

    def __init__(self, ask: Ask, model: str) -> None:
        self._model = model
        self._id = f"chatcmpl-{uuid4().hex}"
        self._created = int(time.time())
        self._include_usage = ask.include_usage
        head = orjson.dumps(self._members("chat.completion.chunk"))[:-1]
        self._head = b'data: %b,"choices":[{"index":0,"delta":' % head
        self._end = b"}]%b}\n\n" % (b',"usage":null' if ask.include_usage else b"")
        self._tail = b',"logprobs":null,"finish_reason":null' + self._end
        self._text_head = self._head + b'{"content":'
        self._text_tail = b"}" + self._tail
        self._call_head = b""
        self._opening = self._chunk({"role": "assistant", "content": ""})
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[_Call] = []
        self._usage = Usage(0, 0)
        self._reason = ""

    def write(self, event: ProviderEvent) -> bytes:
        if type(event) is TextDelta:
            self._texts.append(event.text)
            frame = self._text_head + orjson.dumps(event.text) + self._text_tail
        else:
            frame = self._other(event)
        if self._opening and frame:
            frame, self._opening = self._opening + frame, b""
        return frame

    def fail(self, problem: Mapping[str, Any]) -> bytes:
        """Without the usual last line: what came before is not a whole answer."""
        return b"data: %b\n\n" % orjson.dumps(error(problem))

    def whole(self) -> Json:
        text = "".join(self._texts)
        message: Json = {
            "role": "assistant",
            "content": None if self._calls and not text else text,
            "refusal": None,
        }
        if self._thoughts:
            message["reasoning_content"] = "".join(self._thoughts)
        if self._calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self._calls
            ]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": self._reason,
        }
        members = self._members("chat.completion")
        return {**members, "choices": [choice], "usage": self._told_usage()}

    def _other(self, event: ProviderEvent) -> bytes:
        match event:
            case ToolInputDelta():
                self._calls[-1].pieces.append(event.json)
                return self._arguments(event.json)
            case ThinkingDelta() if event.text:
                self._thoughts.append(event.text)
                return self._chunk({"reasoning_content": event.text})
            case ToolUseStart():
                return self._ended_call() + self._call(event)
            case Usage():
                self._usage = event
            case Stop():
                return self._stop(event)
        return b""

    def _call(self, event: ToolUseStart) -> bytes:
        index = len(self._calls)
        pieces = [event.input] if event.input else []
        self._calls.append(_Call(event.id, event.name, pieces))
        self._call_head = b'%b{"tool_calls":[{"index":%d,"function":{"arguments":' % (
            self._head,
            index,
        )
        call = {
            "index": index,
            "id": event.id,
            "type": "function",
            "function": {"name": event.name, "arguments": event.input},
        }
        return self._chunk({"tool_calls": [call]})

    def _ended_call(self) -> bytes:
        """The arguments of a call that came without any: clients parse them as JSON."""
        if not self._calls or self._calls[-1].pieces:
            return b""
        self._calls[-1].pieces.append("{}")
        return self._arguments("{}")

    def _arguments(self, json: str) -> bytes:
        return self._call_head + orjson.dumps(json) + b"}}]}" + self._tail

    def _stop(self, event: Stop) -> bytes:
        self._reason = _REASONS[event.reason]
        reason = orjson.dumps(self._reason)
        # A call that was cut off must not look like one without arguments.
        frame = b"" if event.reason in _CUT_OFF else self._ended_call()
        frame += b'%b{},"logprobs":null,"finish_reason":%b%b' % (
            self._head,
            reason,
            self._end,
        )
        if self._include_usage:
            members = self._members("chat.completion.chunk")
            usage = {**members, "choices": [], "usage": self._told_usage()}
            frame += b"data: %b\n\n" % orjson.dumps(usage)
        return frame + _DONE

    def _chunk(self, delta: Json) -> bytes:
        return self._head + orjson.dumps(delta) + self._tail

    def _members(self, kind: str) -> Json:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
        }

    def _told_usage(self) -> Json:
        """OpenAI's input holds what was read from a cache and written to it."""
        told = self._usage
        thought = {"reasoning_tokens": told.thinking_tokens}
        prompt = told.input_tokens + told.cache_read_tokens + told.cache_write_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": told.output_tokens,
            "total_tokens": prompt + told.output_tokens,
            "prompt_tokens_details": {
                "cached_tokens": told.cache_read_tokens,
                "cache_write_tokens": told.cache_write_tokens,
            },
            **({"completion_tokens_details": thought} if told.thinking_tokens else {}),
        }
