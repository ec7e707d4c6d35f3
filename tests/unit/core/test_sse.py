"""What we write, a parser of the standard reads back: nothing more, nothing less."""

import codecs
from dataclasses import dataclass, field
from typing import Any

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from app.core import sse

TEXTS = st.text(
    st.one_of(
        st.sampled_from("\r\n\u2028\u2029\u0085\0\ufeff\x0b\x0c:😀ü "),
        st.characters(codec="utf-8"),
    ),
    max_size=20,
)
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXTS,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(["delta", "thinking", "tool_use", "message_stop"])
IDS = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){3}(\.end)?", fullmatch=True)
EVENTS = st.lists(
    st.tuples(NAMES, st.dictionaries(TEXTS, JSON, max_size=4), IDS), max_size=5
)


@dataclass
class EventSource:
    """The HTML standard's "interpreting an event stream", section 9.2.6, to the letter.

    Fed piece by piece; `events` are what a browser dispatches: type, data, last id.
    """

    events: list[tuple[str, str, str]] = field(default_factory=list)
    comments: int = 0
    _decoder: codecs.IncrementalDecoder = field(
        # Its decode strips one byte order mark, and replaces what is no UTF-8.
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )
    _begun: bool = False
    _line: str = ""
    _after_cr: bool = False
    _type: str = ""
    _data: str = ""
    _id: str = ""

    def feed(self, piece: bytes) -> None:
        for char in self._decoder.decode(piece):
            begun, self._begun = self._begun, True
            if char == "\ufeff" and not begun:
                continue
            if char == "\n" and self._after_cr:
                self._after_cr = False
                continue
            self._after_cr = char == "\r"
            if char in "\r\n":
                self._end_of_line(self._line)
                self._line = ""
            else:
                self._line += char

    def _end_of_line(self, line: str) -> None:
        if not line:
            self._dispatch()
            return
        name, colon, value = line.partition(":")
        if colon and not name:
            self.comments += 1
            return
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._type = value
            case "data":
                self._data += value + "\n"
            case "id" if "\0" not in value:
                self._id = value

    def _dispatch(self) -> None:
        if self._data:
            data = self._data.removesuffix("\n")
            self.events.append((self._type or "message", data, self._id))
        self._type = self._data = ""


def received(stream: bytes, size: int) -> EventSource:
    source = EventSource()
    for start in range(0, len(stream), size):
        source.feed(stream[start : start + size])
    return source


@given(events=EVENTS, size=st.integers(1, 40))
@example(events=[("delta", {"text": "a\r\n\r\ndata: b\n\n"}, "0.0.1.0")], size=1)
@example(events=[("delta", {"\ufeff\u2028": "\0\u0085"}, "0.0.1.0")], size=2)
def test_every_event_is_read_back_as_it_was_written(
    events: list[tuple[str, dict[str, Any], str]], size: int
) -> None:
    stream = b"".join(sse.frame(*event) + sse.KEEPALIVE for event in events)

    source = received(stream, size)

    assert [
        (name, orjson.loads(data), event_id) for name, data, event_id in source.events
    ] == events
    assert source.comments == len(events)


@given(TEXTS)
def test_an_event_is_four_lines_whatever_it_says(text: str) -> None:
    written = sse.frame("delta", {text: text}, "0.0.1.0")

    assert written.count(b"\n") == 4
    assert b"\r" not in written
    assert b"\0" not in written


def test_a_comment_dispatches_nothing() -> None:
    source = received(sse.KEEPALIVE * 3, 1)

    assert (source.events, source.comments) == ([], 3)
