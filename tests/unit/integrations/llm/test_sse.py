"""Our reader of server-sent events, whatever the split."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.integrations.llm.base import ProviderStreamBrokenError
from app.integrations.llm.sse import MAX_EVENT, SseReader
from tests.unit.integrations.llm.test_eventstream import split

LINES = st.one_of(
    st.just("\n"),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["data:", "data: ", ": ", "event: ", "id: 1", "dat", "data"]),
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12),
        st.sampled_from(["\n", "\r\n", "\r"]),
    ),
)


def read(parts: list[bytes]) -> list[bytes]:
    reader = SseReader()
    found = [data for part in parts for data in reader.feed(part)]
    return found + list(reader.close())


def by_the_standard(whole: bytes) -> list[bytes]:
    """The standard's algorithm over the whole input, but that its end ends an event."""
    events: list[list[bytes]] = [[]]
    for line in [*re.split(rb"\r\n|\n|\r", whole), b""]:
        if line.startswith(b"data:"):
            events[-1].append(line.removeprefix(b"data:").removeprefix(b" "))
        elif not line:
            events.append([])
    return [b"\n".join(data) for data in events if data]


@settings(deadline=None, max_examples=200)
@given(st.lists(LINES, max_size=12), st.lists(st.integers(min_value=0), max_size=10))
def test_any_split_reads_as_the_standard_reads_the_whole(
    lines: list[str], places: list[int]
) -> None:
    whole = "".join(lines).encode()

    assert read(split(whole, places)) == by_the_standard(whole)


def test_one_piece_may_hold_many_events_and_comments() -> None:
    piece = b": hi\n\ndata: 1\n\n: hi\n\nevent: x\ndata: 2\ndata: 3\n\ndata:4\r\n\r\n"

    assert read([piece]) == [b"1", b"2\n3", b"4"]


def test_a_character_may_be_split() -> None:
    whole = "data: grün 😀\n\n".encode()

    assert read([bytes([byte]) for byte in whole]) == ["grün 😀".encode()]


def test_a_crlf_may_be_split() -> None:
    assert read([b"data: a\r", b"\ndata: b\r", b"", b"\n\r", b"\n"]) == [b"a\nb"]


def test_the_last_event_needs_no_blank_line() -> None:
    assert read([b"data: 1\n\ndata: [DO", b"NE]"]) == [b"1", b"[DONE]"]


def test_a_byte_order_mark_is_skipped() -> None:
    assert read([b"\xef\xbb", b"\xbfdata: 1\n\n"]) == [b"1"]


def test_an_endless_line_is_refused() -> None:
    piece = b"data: " + bytes(2**20)

    with pytest.raises(ProviderStreamBrokenError, match="too long"):
        read([piece] * (MAX_EVENT // len(piece) + 2))


def test_endless_comments_are_no_endless_event() -> None:
    reader, comment = SseReader(), b": " + bytes(2**20) + b"\n\n"

    assert not [d for _ in range(20) for d in reader.feed(comment)]
