"""The grammar of a stream of OpenAI's chat completions."""

import json
from collections.abc import Sequence
from typing import Any, Literal

Event = dict[str, Any] | Literal["[DONE]"]
Outcome = Literal["done", "error"]

_REASONS = {"stop", "length", "tool_calls", "content_filter"}
_DELTA = {"role", "content", "reasoning_content", "tool_calls"}


def parse(stream: bytes) -> list[Event]:
    """The events of a whole stream: one line of data each, and a blank one."""
    *frames, rest = stream.decode().split("\n\n")
    assert rest == "", "the stream ends within an event"
    return [_data(frame) for frame in frames]


def check(events: Sequence[Event], *, usage: bool = False) -> Outcome:
    """Raise AssertionError for what no client expects; tell how the stream ended.

    `usage` says whether the client asked for it.
    """
    stream = _Stream(usage=usage)
    for event in events:
        stream.take(event)
    assert stream.state in {"done", "error"}, f"it ends in state {stream.state}"
    return "error" if stream.state == "error" else "done"


def _data(frame: str) -> Event:
    assert frame.startswith("data: "), frame
    assert "\n" not in frame, frame
    told = frame.removeprefix("data: ")
    return "[DONE]" if told == "[DONE]" else json.loads(told)


class _Stream:
    """begin -> answer -> finished -> (counted ->) done, or error from any of them."""

    def __init__(self, *, usage: bool) -> None:
        self.state = "begin"
        self._usage = usage
        self._same: dict[str, Any] = {}
        self._calls: list[str] = []

    def take(self, event: Event) -> None:
        assert self.state not in {"done", "error"}, f"{event} after the end"
        if event == "[DONE]":
            assert self.state == ("counted" if self._usage else "finished"), self.state
            self.state = "done"
        elif "error" in event:
            self._error(event)
        else:
            self._chunk(event)

    def _error(self, event: dict[str, Any]) -> None:
        assert event.keys() == {"error"}
        assert event["error"].keys() == {"message", "type", "param", "code"}
        self.state = "error"

    def _chunk(self, chunk: dict[str, Any]) -> None:
        same = {name: chunk[name] for name in ("id", "object", "created", "model")}
        assert same == (self._same or same)
        assert same["object"] == "chat.completion.chunk"
        self._same = same
        others = chunk.keys() - same.keys()
        if self._usage:
            assert others == {"choices", "usage"}
        else:  # a server that was asked for it by us says in each that it comes later
            assert {"choices"} <= others <= {"choices", "usage"}
        if self.state == "finished":
            assert chunk["choices"] == []
            self._counts(chunk["usage"])
            self.state = "counted"
            return
        assert chunk.get("usage") is None
        [choice] = chunk["choices"]
        assert choice.keys() == {"index", "delta", "logprobs", "finish_reason"}
        assert (choice["index"], choice["logprobs"]) == (0, None)
        if choice["finish_reason"] is None:
            self._delta(choice["delta"])
        else:
            self._finish(choice)

    def _delta(self, delta: dict[str, Any]) -> None:
        assert delta.keys() <= _DELTA
        if self.state == "begin":
            assert delta == {"role": "assistant", "content": ""}
            self.state = "answer"
            return
        assert self.state == "answer"
        assert len(delta) == 1
        assert "role" not in delta
        for call in delta.get("tool_calls", ()):
            self._call(call)
        assert isinstance(delta.get("content", ""), str)
        assert delta.get("reasoning_content") != ""

    def _call(self, call: dict[str, Any]) -> None:
        if call["index"] == len(self._calls):
            assert call.keys() == {"index", "id", "type", "function"}
            assert call["type"] == "function"
            assert call["id"]
            assert call["function"].keys() == {"name", "arguments"}
            self._calls.append("")
        else:
            assert call["index"] == len(self._calls) - 1, "calls are mixed up"
            assert call.keys() == {"index", "function"}
            assert call["function"].keys() == {"arguments"}
        self._calls[-1] += call["function"]["arguments"]

    def _finish(self, choice: dict[str, Any]) -> None:
        assert self.state == "answer"
        assert choice["delta"] == {}
        assert choice["finish_reason"] in _REASONS
        if choice["finish_reason"] == "tool_calls":
            assert self._calls
            for call in self._calls:
                assert isinstance(json.loads(call), dict)
        self.state = "finished"

    def _counts(self, usage: dict[str, Any]) -> None:
        prompt, output = usage["prompt_tokens"], usage["completion_tokens"]
        assert usage["total_tokens"] == prompt + output
        details = usage["prompt_tokens_details"]
        assert prompt >= details["cached_tokens"] + details.get("cache_write_tokens", 0)
