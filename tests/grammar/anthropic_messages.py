"""The grammar of a stream of Anthropic's Messages API, event by event.

Reference: "Streaming messages" in Anthropic's API documentation. `parse` reads the
frames, `check` asserts their order and shapes, `message` puts together what they say,
as Anthropic's SDKs do.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

Event = dict[str, Any]

REASONS = {
    "end_turn",
    "max_tokens",
    "model_context_window_exceeded",
    "pause_turn",
    "refusal",
    "stop_sequence",
    "tool_use",
}
_ERRORS = {
    "api_error",
    "authentication_error",
    "billing_error",
    "invalid_request_error",
    "not_found_error",
    "overloaded_error",
    "permission_error",
    "rate_limit_error",
    "request_too_large",
    "timeout_error",
}
_FIGURES = {
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
}
_EMPTY: Mapping[str, Event] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "redacted_thinking": {},
    "tool_use": {"input": {}},
}
"""What a block of each type begins with, besides what is told of it at once."""
_DELTAS: Mapping[str, set[str]] = {
    "text": {"text_delta", "citations_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "redacted_thinking": set(),
    "tool_use": {"input_json_delta"},
}
_SAID = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


def parse(stream: bytes) -> list[Event]:
    """The events of a stream, each of which has its type as its name, too."""
    assert not stream or stream.endswith(b"\n\n"), "the last frame is not whole"
    events = []
    for frame in stream.split(b"\n\n")[:-1]:
        name, data = frame.split(b"\n")
        assert name.startswith(b"event: "), name
        assert data.startswith(b"data: "), data
        event: Event = orjson.loads(data.removeprefix(b"data: "))
        assert event["type"] == name.removeprefix(b"event: ").decode()
        events.append(event)
    return events


def check(events: Iterable[Event]) -> None:
    """Raise AssertionError where the events are no whole stream, or no failed one.

    A failed one ends with an `error`, wherever it had got to.
    """
    grammar = _Grammar()
    for event in events:
        grammar.take(event)
    assert grammar.ended, "the stream has no end"


def message(events: Iterable[Event]) -> Event:
    """The message that a whole stream tells."""
    told: Event = {}
    inputs: dict[int, str] = {}
    for event in events:
        match event["type"]:
            case "message_start":
                told = {**event["message"], "content": []}
            case "content_block_start":
                told["content"].append(dict(event["content_block"]))
            case "content_block_delta":
                index = event["index"]
                _add(told["content"][index], event["delta"], index, inputs)
            case "message_delta":
                told |= event["delta"]
                told["usage"] = {**told["usage"], **event["usage"]}
    for index, json in inputs.items():
        told["content"][index]["input"] = orjson.loads(json)
    return told


def _add(block: Event, delta: Event, index: int, inputs: dict[int, str]) -> None:
    match delta["type"]:
        case "citations_delta":
            block.setdefault("citations", []).append(delta["citation"])
        case "input_json_delta":
            inputs[index] = inputs.get(index, "") + delta["partial_json"]
        case kind:
            block[_SAID[kind]] += delta[_SAID[kind]]


class _Grammar:
    def __init__(self) -> None:
        self.ended = False
        self._started = False
        self._block = ""  # the open one's type
        self._blocks = 0
        self._signed = False
        self._stopped = False  # by a message_delta

    def take(self, event: Event) -> None:
        assert not self.ended, f"{event['type']} after the end"
        kind = event["type"]
        if kind == "error":
            self._error(event)
            return
        if kind == "message_start":
            self._start(event)
            return
        assert self._started, f"{kind} before message_start"
        match kind:
            case "ping":
                assert event == {"type": "ping"}
            case "content_block_start":
                self._begin(event)
            case "content_block_delta":
                self._delta(event)
            case "content_block_stop":
                self._end(event)
            case "message_delta":
                self._message_delta(event)
            case "message_stop":
                assert event == {"type": "message_stop"}
                assert self._stopped, "message_stop before message_delta"
                self.ended = True
            case _:
                raise AssertionError(f"an event of type {kind}")

    def _error(self, event: Event) -> None:
        assert event["error"].keys() == {"type", "message"}
        assert event["error"]["type"] in _ERRORS
        assert event["error"]["message"]
        self.ended = True

    def _start(self, event: Event) -> None:
        assert not self._started, "a second message_start"
        self._started = True
        told = event["message"]
        assert (told["type"], told["role"]) == ("message", "assistant")
        assert told["id"].startswith("msg_")
        assert isinstance(told["model"], str)
        assert told["content"] == []
        assert told["stop_reason"] is told["stop_sequence"] is None
        _check_usage(told["usage"])

    def _begin(self, event: Event) -> None:
        assert not self._block, "a block in a block"
        assert not self._stopped, "a block after message_delta"
        assert event["index"] == self._blocks, "blocks are numbered from 0"
        block = event["content_block"]
        self._block, self._signed = block["type"], False
        self._blocks += 1
        assert self._block in _EMPTY, self._block
        assert block.items() >= _EMPTY[self._block].items(), "a block begins empty"
        if self._block == "tool_use":
            assert block["id"]
            assert block["name"]
        if self._block == "redacted_thinking":
            assert isinstance(block["data"], str)

    def _delta(self, event: Event) -> None:
        assert self._block, "a delta outside of a block"
        assert event["index"] == self._blocks - 1, "a delta of another block"
        delta = event["delta"]
        kind = delta["type"]
        assert kind in _DELTAS[self._block], f"{kind} in a block of {self._block}"
        assert not self._signed, "a delta after the signature"
        self._signed = kind == "signature_delta"
        if kind == "citations_delta":
            _check_citation(delta["citation"])
        else:
            assert delta.keys() == {"type", _SAID[kind]}
            assert isinstance(delta[_SAID[kind]], str)

    def _end(self, event: Event) -> None:
        assert self._block, "the end of no block"
        assert event == {"type": "content_block_stop", "index": self._blocks - 1}
        self._block = ""

    def _message_delta(self, event: Event) -> None:
        assert not self._block, "message_delta in a block"
        assert not self._stopped, "a second message_delta"
        self._stopped = True
        delta = event["delta"]
        assert delta["stop_reason"] in REASONS
        if delta["stop_sequence"] is not None:
            assert isinstance(delta["stop_sequence"], str)
            assert delta["stop_reason"] == "stop_sequence"
        _check_usage(event["usage"])


def _check_usage(usage: Event) -> None:
    assert usage.keys() >= _FIGURES
    assert all(type(usage[name]) is int and usage[name] >= 0 for name in _FIGURES)


def _check_citation(citation: Event) -> None:
    assert citation["type"] == "char_location"
    assert isinstance(citation["cited_text"], str)
    assert citation["document_index"] >= 0
    assert 0 <= citation["start_char_index"] <= citation["end_char_index"]
