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
    RedactedThinking,
    Stop,
    TextDelta,
    ThinkingDelta,
    ToolInputDelta,
    ToolUseStart,
    Usage,
)
from app.schemas.message import MessageRead
from app.services.chat.reply import Follower, Position, Reply, continuable

END = b"event: message_stop\nid: end\ndata: {}\n\n"

ids = st.integers(1, 10**6).map(lambda number: f"toolu_{number}")

one_event = st.one_of(
    st.builds(TextDelta, st.text(max_size=8)),
    st.builds(ThinkingDelta, st.text(max_size=8), st.sampled_from(["", "sig"])),
    st.builds(RedactedThinking, st.text(max_size=3)),
    st.builds(
        Citation, st.just("docs/a.md"), st.text(max_size=3), st.just(0), st.just(3)
    ),
)
one_call = st.builds(
    lambda start, pieces: [start, *pieces],
    st.builds(ToolUseStart, ids, st.text(max_size=4), st.sampled_from(["", "{"])),
    st.lists(st.builds(ToolInputDelta, st.text(max_size=6)), max_size=4),
)
events_of_a_reply = st.lists(
    st.one_of(one_event.map(lambda event: [event]), one_call), max_size=10
).map(lambda groups: [event for group in groups for event in group])


def parsed(frames: bytes) -> list[tuple[str, str, dict[str, Any]]]:
    found = []
    for block in frames.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return found


def summary(frames: bytes) -> dict[str, Any]:
    """All that a client makes of some frames."""
    return summed(parsed(frames))


def summed(events: list[tuple[str, str, dict[str, Any]]]) -> dict[str, Any]:
    calls: list[list[str]] = []
    for name, _, d in events:
        if name == "tool_use" and not d["input_delta"]:
            calls.append([d["id"], d["name"], ""])
        elif name == "tool_use" and calls:
            calls[-1][2] += d["input_delta"]
        elif name == "tool_use":  # of a call whose head came before
            calls.append(["", "", d["input_delta"]])
    return {
        "text": "".join(d["text"] for name, _, d in events if name == "delta"),
        "thinking": "".join(d["text"] for name, _, d in events if name == "thinking"),
        "citations": sum(name == "citation" for name, _, _ in events),
        "calls": calls,
    }


def grown(events: list[ProviderEvent], **options: Any) -> Reply:
    reply = Reply(**options)
    for event in events:
        reply.apply(event)
    return reply


async def followed(reply: Reply, position: Position | None = None) -> bytes:
    follower = Follower()
    frames = [f async for f in reply.follow(position, follower, keepalive=5)]
    return b"".join(frames)


@given(events=events_of_a_reply, cut=st.integers(0, 20))
def test_a_client_gets_the_rest_from_the_log_and_from_the_stored_reply_alike(
    events: list[ProviderEvent], cut: int
) -> None:
    live = grown(events)
    stored = Reply(live.content, live.citations)
    frames = parsed(live.missed(Position()))
    seen = frames[:cut]
    position = Position.parse(seen[-1][1]) if seen else Position()

    for reply in (live, stored):
        rest = parsed(reply.missed(position))
        assert summed(seen + rest) == summed(frames)


@given(events=events_of_a_reply, data=st.data())
def test_a_client_between_two_characters_gets_the_rest_too(
    events: list[ProviderEvent], data: st.DataObject
) -> None:
    """As it stands after `at_most`, or another process's larger pieces."""
    live = grown(events)
    frames = parsed(live.missed(Position()))
    if not frames:
        return
    number = data.draw(st.integers(0, len(frames) - 1))
    name, event_id, payload = frames[number]
    key = {"delta": "text", "thinking": "text", "tool_use": "input_delta"}.get(name)
    if key is None or not payload[key]:
        return
    missing = data.draw(st.integers(0, len(payload[key]) - 1))
    end = Position.parse(event_id)
    position = end._replace(offset=end.offset - missing)
    held = payload[key][: len(payload[key]) - missing]
    seen = [*frames[:number], (name, event_id, {**payload, key: held})]

    for reply in (live, Reply(live.content, live.citations)):
        assert summed(seen + parsed(reply.missed(position))) == summed(frames)


@given(events=events_of_a_reply)
def test_a_stored_reply_is_stored_again_as_it_is(events: list[ProviderEvent]) -> None:
    live = grown(events)
    again = Reply(live.content, live.citations)

    assert again.content == live.content
    assert again.position == live.position
    assert again.text == live.text
    assert again.written == live.written


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


def test_blocks_are_stored_in_their_order() -> None:
    reply = grown(
        [
            ThinkingDelta("a", "first"),
            ThinkingDelta("b", "second"),
            RedactedThinking("secret"),
            TextDelta("Let me look."),
            ToolUseStart("1", "clock"),
            ToolInputDelta('{"zone": '),
            ToolInputDelta('"UTC"}'),
            ToolUseStart("2", "clock", "{}"),
            ToolUseStart("3", "stop"),
        ]
    )

    assert reply.content == [
        {"type": "thinking", "thinking": "a", "signature": "first"},
        {"type": "thinking", "thinking": "b", "signature": "second"},
        {"type": "redacted_thinking", "data": "secret"},
        {"type": "text", "text": "Let me look."},
        {
            "type": "tool_use",
            "id": "1",
            "name": "clock",
            "input_json": '{"zone": "UTC"}',
        },
        {"type": "tool_use", "id": "2", "name": "clock", "input_json": "{}"},
        {"type": "tool_use", "id": "3", "name": "stop", "input_json": ""},
    ]
    assert reply.position == Position(0, 6, 1)
    assert reply.written == 'abLet me look.{"zone": "UTC"}{}'


def test_a_call_of_a_tool_is_told_with_its_head_first() -> None:
    reply = grown([ToolUseStart("1", "clock"), ToolInputDelta("{}")])

    assert parsed(reply.missed(Position())) == [
        ("tool_use", "0.0.1.0", {"id": "1", "name": "clock", "input_delta": ""}),
        ("tool_use", "0.0.3.0", {"id": "1", "name": "clock", "input_delta": "{}"}),
    ]


@pytest.mark.parametrize(
    ("given_json", "told"),
    [
        ('{"a": 1}', {"input": {"a": 1}}),
        ("", {"input": {}}),
        ('{"a": ', {"input": {}, "input_json": '{"a": '}),
        ("[1]", {"input": {}, "input_json": "[1]"}),
    ],
)
def test_clients_get_the_input_of_a_tool_as_an_object(
    given_json: str, told: dict[str, Any]
) -> None:
    """What is none stays as it came, beside an empty one."""
    [field] = [MessageRead.model_fields["content"]]
    [validator] = field.metadata
    reply = grown([TextDelta("a"), ToolUseStart("1", "clock", given_json)])

    text, call = validator.func(reply.content)

    assert text == {"type": "text", "text": "a"}
    assert call == {"type": "tool_use", "id": "1", "name": "clock", **told}


def test_a_continuation_leaves_the_calls_at_the_end_out() -> None:
    reply = grown([TextDelta("a"), ToolUseStart("1", "b"), ToolUseStart("2", "c")])

    assert continuable(reply.content) == [{"type": "text", "text": "a"}]
    assert continuable([]) == []


def test_a_resumed_reply_goes_on_in_its_last_block() -> None:
    first = grown([TextDelta("One ")])
    again = grown([TextDelta("two")], content=first.content, attempt=1)

    assert again.content == [{"type": "text", "text": "One two"}]
    assert again.resumed_from == Position(1, 0, 4, 0)
    assert again.text_before(again.resumed_from) == 4
    assert summary(again.missed(again.resumed_from))["text"] == "two"


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
        assert summary(frames)["text"] == "One two three"
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
