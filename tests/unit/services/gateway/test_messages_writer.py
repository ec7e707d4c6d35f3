"""Anthropic's messages as they are written, streamed and whole, and errors."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.exceptions import (
    AppError,
    ForbiddenError,
    NotFoundError,
    OverloadedError,
    PayloadTooLargeError,
    RateLimitedError,
    UnauthenticatedError,
    ValidationFailedError,
)
from app.integrations.llm.base import (
    ChatRequest,
    Citation,
    ProviderError,
    ProviderEvent,
    ProviderRejectedError,
    ProviderStreamBrokenError,
    ProviderThrottledError,
    ProviderTimeoutError,
    RedactedThinking,
    Stop,
    TextDelta,
    ThinkingDelta,
    ToolInputDelta,
    ToolUseStart,
    Usage,
)
from app.services.gateway.fields import InvalidFieldError
from app.services.gateway.format import Ask, Writer
from app.services.gateway.messages import MESSAGES
from tests.grammar.anthropic_messages import check, message, parse
from tests.grammar.provider_events import answers

GOLDEN = Path(__file__).parent / "golden" / "messages"

NEARLY, DONE = Usage(10, 0, estimated=True), Usage(12, 34, 5, 6)

ANSWERS: dict[str, list[ProviderEvent]] = {
    "text": [TextDelta("Hello"), TextDelta(' "you"\n😀'), DONE, Stop("end_turn")],
    "thinking": [
        ThinkingDelta("Let me"),
        ThinkingDelta(" see."),
        ThinkingDelta("", "c2lnbmVk"),
        TextDelta("42"),
        DONE,
        Stop("end_turn"),
    ],
    "tools": [
        TextDelta("I look."),
        ToolUseStart("toolu_1", "clock"),
        ToolInputDelta('{"zone": '),
        ToolInputDelta('"UTC"}'),
        ToolUseStart("toolu_2", "weather", '{"city":"Bern"}'),
        ToolUseStart("toolu_3", "dice"),
        DONE,
        Stop("tool_use"),
    ],
    "several_blocks": [
        RedactedThinking("c2VjcmV0"),
        ThinkingDelta("One."),
        ThinkingDelta("", "YQ=="),
        ThinkingDelta("Two."),
        Citation("docs/a.md", "quoted", 3, 9),
        TextDelta("It is quoted"),
        Citation("docs/b.md", "there", 0, 5),
        Citation("docs/a.md", "here", 1, 5),
        TextDelta(" there."),
        DONE,
        Stop("end_turn"),
    ],
    "nothing": [DONE, Stop("end_turn")],
    "refusal": [TextDelta("No."), DONE, Stop("refusal")],
    "max_tokens": [TextDelta("And so on and"), DONE, Stop("max_tokens")],
    "stop_sequence": [TextDelta("one "), DONE, Stop("stop_sequence", "two")],
}


def asked(**body: Any) -> Ask:
    return Ask(ChatRequest("m", []), body)


def writer(**body: Any) -> Writer:
    return MESSAGES.writer(asked(**body), "ollama/llama3.2")


def written(reply: Writer, events: Sequence[ProviderEvent]) -> bytes:
    return b"".join(map(reply.write, events))


def whole(events: Sequence[ProviderEvent], **body: Any) -> dict[str, Any]:
    reply = writer(**body)
    written(reply, events)
    return dict(reply.whole())


def steady(stream: bytes) -> str:
    """A stream with the same id every time."""
    return re.sub(r'"msg_[0-9a-f]{32}"', '"msg_1"', stream.decode())


@pytest.mark.parametrize("name", ANSWERS)
def test_a_stream_is_just_so(name: str) -> None:
    stream = written(writer(), [NEARLY, *ANSWERS[name]])

    check(parse(stream))
    assert steady(stream) == (GOLDEN / f"{name}.sse").read_text("utf-8")


@pytest.mark.parametrize("name", ANSWERS)
def test_a_whole_message_says_what_its_stream_says(name: str) -> None:
    reply = writer()
    stream = written(reply, [NEARLY, *ANSWERS[name]])

    assert message(parse(stream)) == reply.whole()


def test_thinking_is_told_apart_where_its_provider_told_it() -> None:
    thought = Usage(1, 9, thinking_tokens=4)

    usage = whole([TextDelta("Yes."), thought, Stop("end_turn")])["usage"]

    assert usage["output_tokens"] == 9
    assert usage["output_tokens_details"] == {"thinking_tokens": 4}


def test_a_failure_in_the_middle_ends_the_stream() -> None:
    """TRUST F3: a typed error, never a clean end."""
    reply = writer()
    stream = written(reply, [NEARLY, TextDelta("Hel")])
    problem = ProviderStreamBrokenError("The model's answer broke off.").problem()

    stream += reply.fail({**problem, "request_id": "req-1"})

    check(parse(stream))
    assert steady(stream) == (GOLDEN / "failure.sse").read_text("utf-8")


def test_nothing_is_written_before_the_answer_begins() -> None:
    """So that until then the call may be made again, and fail with a status."""
    reply = writer()

    assert reply.write(Usage(1, 0)) == reply.write(Usage(2, 0)) == b""
    assert parse(reply.write(TextDelta("a")))[0]["message"]["usage"] == {
        "input_tokens": 2,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 0,
    }


def test_each_answer_has_an_id_of_its_own() -> None:
    assert whole(ANSWERS["text"])["id"] != whole(ANSWERS["text"])["id"]


class TestOmittedThinking:
    THINKING: ClassVar = {"type": "adaptive", "display": "omitted"}

    def test_only_its_signature_and_signs_of_life_are_told(self) -> None:
        events = ANSWERS["thinking"]

        stream = written(writer(thinking=self.THINKING), [NEARLY, *events])

        check(parse(stream))
        assert b"see" not in stream
        assert [e["type"] for e in parse(stream)][1:6] == [
            "content_block_start",
            "ping",
            "ping",
            "content_block_delta",
            "content_block_stop",
        ]

    def test_so_it_is_in_a_whole_message(self) -> None:
        told = whole(ANSWERS["thinking"], thinking=self.THINKING)

        assert told["content"][0] == {
            "type": "thinking",
            "thinking": "",
            "signature": "c2lnbmVk",
        }


@pytest.mark.parametrize("json", ['{"a": ', "[1]", "oh"])
def test_an_input_that_is_no_object_is_kept_as_it_is(json: str) -> None:
    call = ToolUseStart("1", "clock", json)
    events: list[ProviderEvent] = [call, DONE, Stop("max_tokens")]

    assert whole(events)["content"][0]["input"] == {"INVALID_JSON": json}


@given(events=answers(), omits=st.booleans())
def test_any_answer_is_a_good_stream_that_says_it_all(
    *, events: list[ProviderEvent], omits: bool
) -> None:
    reply = writer(thinking={"display": "omitted"} if omits else None)
    read = parse(written(reply, events))

    check(read)
    told = message(read)
    assert told == reply.whole()
    texts = [b["text"] for b in told["content"] if b["type"] == "text"]
    thoughts = [b["thinking"] for b in told["content"] if b["type"] == "thinking"]
    calls = [b for b in told["content"] if b["type"] == "tool_use"]
    assert "".join(texts) == "".join(e.text for e in events if type(e) is TextDelta)
    assert "".join(thoughts) == "".join(
        e.text for e in events if type(e) is ThinkingDelta and not omits
    )
    assert [b["id"] for b in calls] == [e.id for e in events if type(e) is ToolUseStart]
    assert sum(len(b.get("citations", ())) for b in told["content"]) == sum(
        type(e) is Citation for e in events
    )


@given(answers(), st.data())
def test_an_answer_that_breaks_off_anywhere_is_a_failed_stream(
    events: list[ProviderEvent], data: st.DataObject
) -> None:
    """TRUST F3: a typed error, never a clean end."""
    reply = writer()
    until = data.draw(st.integers(0, len(events) - 1))
    stream = written(reply, events[:until])

    read = parse(stream + reply.fail(ProviderTimeoutError("Too long.").problem()))

    check(read)
    assert read[-1]["error"]["type"] == "timeout_error"


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "type_"),
        [
            (InvalidFieldError("a", "b"), "invalid_request_error"),
            (ProviderRejectedError("x"), "invalid_request_error"),
            (UnauthenticatedError("x"), "authentication_error"),
            (ForbiddenError("x"), "permission_error"),
            (NotFoundError("x"), "not_found_error"),
            (PayloadTooLargeError("x"), "request_too_large"),
            (RateLimitedError("x"), "rate_limit_error"),
            (AppError("x"), "api_error"),
            (ProviderError("x"), "api_error"),
            (OverloadedError(), "overloaded_error"),
            (ProviderThrottledError("x"), "overloaded_error"),
            (ProviderTimeoutError("x"), "timeout_error"),
        ],
    )
    def test_their_types_are_those_of_their_status(
        self, error: AppError, type_: str
    ) -> None:
        told = MESSAGES.error({**error.problem(), "request_id": "req-1"})

        assert told["type"] == "error"
        assert told["error"]["type"] == type_
        assert told["request_id"] == "req-1"

    @pytest.mark.parametrize(
        ("status", "type_"),
        [
            (402, "billing_error"),
            (409, "invalid_request_error"),
            (529, "overloaded_error"),
        ],
    )
    def test_statuses_that_none_of_ours_has_yet(self, status: int, type_: str) -> None:
        told = MESSAGES.error({"status": status, "title": "Title"})

        assert told == {
            "type": "error",
            "error": {"type": type_, "message": "Title"},
            "request_id": None,
        }

    def test_the_message_names_the_wrong_fields(self) -> None:
        one = InvalidFieldError("messages.0.role", "is required")
        wrong: Any = [{"path": p, "message": "is wrong"} for p in ("a", "b")]
        two = ValidationFailedError("Some fields are wrong.", errors=wrong)

        assert [
            MESSAGES.error(e.problem())["error"]["message"] for e in (one, two)
        ] == [
            "messages.0.role: is required",
            "a: is wrong; b: is wrong",
        ]
        told = MESSAGES.error(NotFoundError("There is no model x.").problem())
        assert told["error"]["message"] == "There is no model x."
