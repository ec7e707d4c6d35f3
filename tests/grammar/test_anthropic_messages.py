"""The grammar itself: what it takes, and that it takes nothing else."""

from typing import Any

import pytest

from tests.grammar.anthropic_messages import Event, check, message, parse

FIGURES = {
    "input_tokens": 1,
    "output_tokens": 2,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
}
START: Event = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": FIGURES,
    },
}
PING: Event = {"type": "ping"}
LAST: Event = {"type": "message_stop"}
ERROR: Event = {"type": "error", "error": {"type": "api_error", "message": "Oh."}}
CALL: Event = {"type": "tool_use", "id": "1", "name": "clock", "input": {}}
THOUGHT: Event = {"type": "thinking", "thinking": "", "signature": ""}
SIGNED: Event = {"type": "signature_delta", "signature": "x"}


def begin(index: int = 0, **block: Any) -> Event:
    block = block or {"type": "text", "text": ""}
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int = 0, **fields: Any) -> Event:
    fields = fields or {"type": "text_delta", "text": "a"}
    return {"type": "content_block_delta", "index": index, "delta": fields}


def end(index: int = 0) -> Event:
    return {"type": "content_block_stop", "index": index}


def stop(reason: str = "end_turn", sequence: str | None = None) -> Event:
    told = {"stop_reason": reason, "stop_sequence": sequence}
    return {"type": "message_delta", "delta": told, "usage": FIGURES}


@pytest.mark.parametrize(
    "events",
    [
        [START, stop(), LAST],
        [START, PING, begin(), PING, delta(), end(), PING, stop(), LAST],
        [START, begin(**CALL), end(), begin(1), end(1), stop("tool_use"), LAST],
        [START, begin(**THOUGHT), delta(**SIGNED), end(), stop(), LAST],
        [START, stop("stop_sequence", "x"), LAST],
        [ERROR],
        [START, begin(), ERROR],
    ],
)
def test_good_streams(events: list[Event]) -> None:
    check(events)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [START],
        [START, stop()],
        [START, LAST],
        [stop(), LAST],
        [PING, START, stop(), LAST],
        [START, START, stop(), LAST],
        [START, stop(), stop(), LAST],
        [START, stop(), LAST, PING],
        [START, stop(), LAST, ERROR],
        [START, begin(), stop(), LAST],
        [START, begin(), begin(1), end(1), stop(), LAST],
        [START, begin(1), end(1), stop(), LAST],
        [START, begin(), end(), begin(), end(), stop(), LAST],
        [START, begin(), end(1), stop(), LAST],
        [START, begin(), delta(1), end(), stop(), LAST],
        [START, delta(), stop(), LAST],
        [START, begin(), end(), delta(), stop(), LAST],
        [START, end(), stop(), LAST],
        [START, stop(), begin(), end(), LAST],
        [START, begin(type="text", text="a"), end(), stop(), LAST],
        [START, begin(type="tool_use", id="", name="a", input={}), end(), stop(), LAST],
        [START, begin(type="unknown"), end(), stop(), LAST],
        [START, begin(**CALL), delta(), end(), stop(), LAST],
        [START, begin(), delta(**SIGNED), end(), stop(), LAST],
        [
            START,
            begin(**THOUGHT),
            delta(**SIGNED),
            delta(**SIGNED),
            end(),
            stop(),
            LAST,
        ],
        [START, stop("length"), LAST],
        [START, stop("end_turn", "x"), LAST],
        [START, {**stop(), "usage": {"output_tokens": 1}}, LAST],
        [{"type": "error", "error": {"type": "unknown", "message": "Oh."}}],
        [{"type": "error", "error": {"type": "api_error", "message": ""}}],
    ],
)
def test_bad_streams(events: list[Event]) -> None:
    with pytest.raises(AssertionError):
        check(events)


@pytest.mark.parametrize(
    "stream",
    [
        b'event: ping\ndata: {"type":"ping"}\n',
        b'event: pong\ndata: {"type":"ping"}\n\n',
        b'data: {"type":"ping"}\ndata: {}\n\n',
    ],
)
def test_frames_that_are_not_whole_or_named_wrongly(stream: bytes) -> None:
    with pytest.raises(AssertionError):
        parse(stream)


def test_a_message_is_put_together_from_its_deltas() -> None:
    json = {"type": "input_json_delta", "partial_json": '{"a":'}
    rest = {"type": "input_json_delta", "partial_json": "1}"}

    told = message([
        START, begin(), delta(), delta(), end(), begin(1, **CALL),
        delta(1, **json), delta(1, **rest), end(1), stop("tool_use"), LAST,
    ])  # fmt: skip

    assert told == {
        **START["message"],
        "content": [{"type": "text", "text": "aa"}, {**CALL, "input": {"a": 1}}],
        "stop_reason": "tool_use",
    }
