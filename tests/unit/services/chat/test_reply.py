"""TRUST F2: a client at any position gets exactly the rest."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.exceptions import BadRequestError, UnauthenticatedError
from app.integrations.llm.base import (
    Citation,
    ProviderEvent,
    Stop,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from app.services.chat.reply import Follower, Position, Reply

END = b"event: message_stop\nid: end\ndata: {}\n\n"

events_of_a_reply = st.lists(
    st.one_of(
        st.builds(TextDelta, st.text(max_size=8)),
        st.builds(ThinkingDelta, st.text(max_size=8), st.sampled_from(["", "sig"])),
        st.builds(
            Citation, st.just("docs/a.md"), st.text(max_size=3), st.just(0), st.just(3)
        ),
    ),
    max_size=12,
)


def parsed(frames: bytes) -> list[tuple[str, str, dict[str, Any]]]:
    found = []
    for block in frames.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return found


def summary(frames: bytes) -> tuple[str, str, int]:
    """The text, the thinking and the number of citations in some frames."""
    events = parsed(frames)
    return (
        "".join(d["text"] for name, _, d in events if name == "delta"),
        "".join(d["text"] for name, _, d in events if name == "thinking"),
        sum(name == "citation" for name, _, _ in events),
    )


def grown(events: list[ProviderEvent], **options: Any) -> Reply:
    reply = Reply(**options)
    for event in events:
        reply.apply(event)
    return reply


async def followed(reply: Reply, position: Position | None = None) -> bytes:
    follower = Follower()
    frames = [f async for f in reply.follow(position, follower, keepalive=5)]
    return b"".join(frames)


@given(events=events_of_a_reply, cut=st.integers(0, 12))
def test_a_client_gets_the_rest_from_the_log_and_from_the_stored_reply_alike(
    events: list[ProviderEvent], cut: int
) -> None:
    live = grown(events)
    stored = Reply(live.content, live.citations)
    frames = parsed(live.missed(Position()))
    seen = frames[:cut]
    position = Position.parse(seen[-1][1]) if seen else Position()

    whole = summary(live.missed(Position()))
    first = summary(grown(events[:0]).missed(Position()))
    for name, _, payload in seen:
        text, thinking, citations = first
        first = (
            text + payload["text"] if name == "delta" else text,
            thinking + payload["text"] if name == "thinking" else thinking,
            citations + (name == "citation"),
        )

    for reply in (live, stored):
        text, thinking, citations = summary(reply.missed(position))
        assert (first[0] + text, first[1] + thinking, first[2] + citations) == whole


@given(events=events_of_a_reply)
def test_every_event_moves_the_position_on(events: list[ProviderEvent]) -> None:
    reply = grown(events)
    ids = [event_id for _, event_id, _ in parsed(reply.missed(Position()))]

    assert len(ids) == len(set(ids))
    assert reply.missed(reply.position) == b""


@given(
    st.builds(
        Position,
        *(st.integers(0, 999_999_999) for _ in range(4)),
        st.booleans(),
    )
)
def test_a_position_reads_back(position: Position) -> None:
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize("text", ["", "1", "a.b.c.d", "0.0.0.0.", "1" * 40])
def test_a_position_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError):
        Position.parse(text)


def test_thinking_and_text_become_blocks() -> None:
    reply = grown(
        [
            ThinkingDelta("Let me "),
            ThinkingDelta("see.", "signed"),
            TextDelta("Yes"),
            TextDelta("."),
            Usage(1, 2),
            Stop("end_turn"),
        ]
    )

    assert reply.content == [
        {"type": "thinking", "thinking": "Let me see.", "signature": "signed"},
        {"type": "text", "text": "Yes."},
    ]
    assert reply.text == "Yes."
    assert reply.usage == Usage(1, 2)
    assert reply.stop == Stop("end_turn")


def test_a_resumed_reply_goes_on_in_its_last_block() -> None:
    first = grown([TextDelta("One ")])
    again = grown([TextDelta("two")], content=first.content, attempt=1)

    assert again.content == [{"type": "text", "text": "One two"}]
    assert again.resumed_from == Position(1, 0, 4, 0)
    assert again.text_before(again.resumed_from) == 4
    assert summary(again.missed(again.resumed_from)) == ("two", "", 0)


def test_the_text_before_a_position_leaves_thinking_out() -> None:
    reply = grown([ThinkingDelta("hm"), TextDelta("One "), TextDelta("two")])

    assert reply.text_before(Position(0, 1, 4)) == 4
    assert reply.text_before(Position(0, 0, 1)) == 0
    assert reply.text_before(reply.position) == 7


@pytest.mark.parametrize(
    ("held", "limit", "expected"),
    [
        (Position(0, 0, 3, 1), Position(0, 0, 9, 4), Position(0, 0, 3, 1)),
        (Position(0, 0, 12, 9), Position(0, 0, 9, 4), Position(0, 0, 9, 4)),
        (Position(0, 2, 0, 0, ended=True), Position(0, 1, 9), Position(0, 1, 9)),
    ],
)
def test_a_position_is_brought_back_to_what_was_kept(
    held: Position, limit: Position, expected: Position
) -> None:
    assert held.at_most(limit) == expected


async def test_followers_read_along_until_the_end() -> None:
    reply = grown([TextDelta("One ")])
    readers = [asyncio.create_task(followed(reply)) for _ in range(3)]
    for word in ("two ", "three"):
        await asyncio.sleep(0)
        reply.apply(TextDelta(word))
    reply.finish(lambda _id: END)

    for frames in await asyncio.gather(*readers):
        assert summary(frames)[0] == "One two three"
        assert frames.endswith(END)


async def test_a_late_follower_of_an_ended_reply_gets_it_all() -> None:
    reply = grown([TextDelta("One")])
    reply.finish(lambda event_id: f"event: x\nid: {event_id}\ndata: {{}}\n\n".encode())

    frames = await followed(reply)

    assert parsed(frames)[-1][1] == "0.0.3.0.end"


async def test_a_quiet_reply_gives_comments() -> None:
    reply = Reply()
    stream = reply.follow(None, Follower(), keepalive=0.001)

    assert (await anext(stream)).startswith(b":")
    assert (await anext(stream)).startswith(b":")
    await stream.aclose()
    assert not reply._followers


async def test_a_closed_follower_gets_the_reason_with_its_position() -> None:
    reply = grown([TextDelta("One")])
    follower = Follower()
    stream = reply.follow(None, follower, keepalive=5)
    await anext(stream)
    reply.apply(TextDelta(" two"))
    await anext(stream)

    follower.close(UnauthenticatedError("over"))
    frames = b"".join([f async for f in stream])

    ((name, event_id, payload),) = parsed(frames)
    assert name == "error"
    assert event_id == "0.0.7.0"
    assert payload["problem"]["status"] == 401
