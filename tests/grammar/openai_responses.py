"""The grammar of a stream of OpenAI's responses."""

import json
from collections.abc import Sequence
from typing import Any, Literal

Event = dict[str, Any]
Outcome = Literal["completed", "incomplete", "failed"]

_PIECES = {
    "message": "output_text",
    "reasoning": "reasoning_summary_text",
    "function_call": "function_call_arguments",
}
_PARTS = {"message": "content_part", "reasoning": "reasoning_summary_part"}
_NUMBERS = {"message": "content_index", "reasoning": "summary_index"}
_PREFIX = "response."


def parse(stream: bytes) -> list[Event]:
    """The events of a whole stream: a name, one line of data, and a blank one."""
    *frames, rest = stream.decode().split("\n\n")
    assert rest == "", "the stream ends within an event"
    return [_data(frame) for frame in frames]


def check(events: Sequence[Event]) -> Outcome:
    """Raise AssertionError for what no client expects; tell how the stream ended."""
    stream = _Stream()
    for number, event in enumerate(events):
        assert event["sequence_number"] == number
        stream.take(event["type"].removeprefix(_PREFIX), event)
    assert stream.outcome is not None, "it does not end"
    return stream.outcome


def _data(frame: str) -> Event:
    name, data = frame.split("\n")
    event: Event = json.loads(data.removeprefix("data: "))
    assert name == f"event: {event['type']}"
    assert data.startswith("data: ")
    return event


class _Stream:
    """created -> in_progress -> items, one after the other -> how it ended."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self._begun: list[str] = []
        self._first: Event = {}
        self._done: list[Event] = []
        self._open: _Open | None = None

    def take(self, kind: str, event: Event) -> None:
        assert self.outcome is None, f"{kind} after the end"
        if kind in {"created", "in_progress"}:
            self._begin(kind, event["response"])
            return
        assert self._begun == ["created", "in_progress"], f"{kind} before the beginning"
        match kind:
            case "completed" | "incomplete" | "failed":
                self._end(kind, event["response"])
            case "output_item.added":
                assert self._open is None, "two items at once"
                self._open = _Open(event, len(self._done))
            case "output_item.done":
                assert self._open is not None
                self._done.append(self._open.done(event))
                self._open = None
            case _:
                assert self._open is not None, f"{kind} outside of an item"
                self._open.take(kind, event)

    def _begin(self, kind: str, response: Event) -> None:
        self._begun.append(kind)
        assert self._begun == ["created", "in_progress"][: len(self._begun)]
        assert response["status"] == "in_progress"
        assert response["output"] == []
        assert response["usage"] is None
        assert response == (self._first or response)
        self._first = response

    def _end(self, kind: Outcome, response: Event) -> None:
        assert response["status"] == kind
        changing = {"status", "output", "usage", "error", "incomplete_details"}
        for name in self._first.keys() - changing:
            assert response[name] == self._first[name]
        assert (response["error"] is not None) == (kind == "failed")
        assert (response["incomplete_details"] is not None) == (kind == "incomplete")
        whole, rest = response["output"], 0
        if self._open is not None:
            assert kind == "failed", "an item is still open"
            rest = 1
            assert self._open.is_state_of(whole[-1])
        assert whole[: len(whole) - rest] == self._done
        usage = response["usage"]
        total = usage["input_tokens"] + usage["output_tokens"]
        assert usage["total_tokens"] == total
        self.outcome = kind


class _Open:
    """An item that grows: its part opens, pieces come, both end with the whole."""

    def __init__(self, event: Event, index: int) -> None:
        assert event["output_index"] == index
        item = event["item"]
        self.kind: str = item["type"]
        assert item.get("content", []) == []
        assert item.get("summary", []) == []
        assert item.get("arguments", "") == ""
        assert self.kind == "reasoning" or item["status"] == "in_progress"
        self._item = item
        self._place = {"item_id": item["id"], "output_index": index}
        if self.kind in _NUMBERS:
            self._place[_NUMBERS[self.kind]] = 0
        self._text = ""
        self._annotations: list[Event] = []
        self._state = "open" if self.kind in _PARTS else "grows"

    def take(self, kind: str, event: Event) -> None:
        assert event.items() >= self._place.items()
        pieces, part = _PIECES[self.kind], _PARTS.get(self.kind)
        if kind == f"{part}.added":
            assert self._state == "open"
            assert event["part"]["text"] == ""
            self._state = "grows"
        elif kind == f"{pieces}.delta":
            assert self._state == "grows"
            self._text += event["delta"]
        elif kind == "output_text.annotation.added":
            assert (self.kind, self._state) == ("message", "grows")
            assert event["annotation_index"] == len(self._annotations)
            self._annotations.append(event["annotation"])
        elif kind == f"{pieces}.done":
            assert self._state == "grows"
            assert event.get("text", event.get("arguments")) == self._text
            self._state = "told"
        else:
            assert (kind, self._state) == (f"{part}.done", "told")
            self._is_part(event["part"])
            self._state = "closed"

    def done(self, event: Event) -> Event:
        whole = {"message": "closed", "function_call": "told"}.get(self.kind)
        assert self._state == whole or (not whole and self._state in {"open", "closed"})
        item: Event = event["item"]
        assert event["output_index"] == self._place["output_index"]
        assert item.get("status") != "in_progress"
        assert self.is_state_of(item)
        if item.get("status") == "completed" and self.kind == "function_call":
            json.loads(item["arguments"])
        return item

    def is_state_of(self, item: Event) -> bool:
        """Whether that is what came of it so far."""
        for name in ("id", "type", "role", "call_id", "name"):
            assert item.get(name) == self._item.get(name)
        match self.kind:
            case "message":
                [part] = item["content"]
                self._is_part(part)
            case "reasoning":
                assert "".join(part["text"] for part in item["summary"]) == self._text
            case _:
                assert item["arguments"] == self._text
        return True

    def _is_part(self, part: Event) -> None:
        assert part["text"] == self._text
        assert part.get("annotations", []) == self._annotations
