import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.integrations.llm.base import Stop, StopReason, TextDelta, ToolUseStart, Usage
from app.services.gateway.chat_completions import CHAT_COMPLETIONS
from app.services.gateway.format import Writer
from tests.grammar import openai_chat as grammar
from tests.grammar.provider_events import Events, answers, broken_answers
from tests.unit.services.gateway.transcripts import (
    ANSWERS,
    PROBLEM,
    golden,
    streamed,
    transcript,
    whole,
)


def writer(*, usage: bool = False) -> Writer:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": usage},
    }
    return CHAT_COMPLETIONS.writer(CHAT_COMPLETIONS.read(body), "claude")


@pytest.mark.parametrize("name", ANSWERS)
def test_a_stream_reads_as_its_transcript(name: str) -> None:
    stream = streamed(writer(), ANSWERS[name])

    assert transcript(stream) == golden(f"chat_{name}.sse")


def test_a_stream_tells_its_usage_to_who_asks() -> None:
    stream = streamed(writer(usage=True), ANSWERS["text"])

    assert transcript(stream) == golden("chat_usage.sse")


def test_a_stream_that_fails_ends_with_the_error_and_is_not_done() -> None:
    """F3: no client takes it for a whole answer."""
    cut = writer()

    stream = streamed(cut, ANSWERS["text"][:2]) + cut.fail(PROBLEM)

    assert transcript(stream) == golden("chat_failure.sse")


def test_thinking_is_told_apart_where_its_provider_told_it() -> None:
    usage = Usage(1, 9, thinking_tokens=4)
    answer: Events = [TextDelta("Yes."), usage, Stop("end_turn")]

    told = whole(writer(), answer)["usage"]

    assert told["completion_tokens"] == 9
    assert told["completion_tokens_details"] == {"reasoning_tokens": 4}


def test_usage_alone_begins_no_stream() -> None:
    """Until the first token the call can be made again, of another provider."""
    assert writer().write(Usage(1, 0)) == b""


@given(events=answers(), usage=st.booleans())
def test_every_answer_is_written_by_the_grammar(events: Events, *, usage: bool) -> None:
    stream = streamed(writer(usage=usage), events)

    assert grammar.check(grammar.parse(stream), usage=usage) == "done"


@given(events=broken_answers(), usage=st.booleans())
def test_every_failure_is_written_by_the_grammar(
    events: Events, *, usage: bool
) -> None:
    cut = writer(usage=usage)

    stream = streamed(cut, events) + cut.fail(PROBLEM)

    assert grammar.check(grammar.parse(stream), usage=usage) == "error"


@given(answers())
def test_a_stream_says_what_the_whole_answer_says(events: Events) -> None:
    both = writer()
    stream = grammar.parse(streamed(both, events))
    deltas = [
        choice["delta"]
        for event in stream
        if event != "[DONE]"
        for choice in event["choices"]
    ]

    [choice] = both.whole()["choices"]

    message = choice["message"]
    assert "".join(d.get("content", "") for d in deltas) == (message["content"] or "")
    thoughts = "".join(d.get("reasoning_content", "") for d in deltas)
    assert thoughts == message.get("reasoning_content", "")
    assert joined_calls(deltas) == message.get("tool_calls", [])


def joined_calls(deltas: list[dict[str, Any]]) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    for piece in (piece for d in deltas for piece in d.get("tool_calls", ())):
        if piece["index"] == len(calls):
            calls.append({name: piece[name] for name in ("id", "type", "function")})
        else:
            arguments = piece["function"]["arguments"]
            calls[piece["index"]]["function"]["arguments"] += arguments
    return calls


def test_a_whole_answer_holds_text_and_usage() -> None:
    answer = whole(writer(), ANSWERS["text"])

    assert re.fullmatch("chatcmpl-[0-9a-f]{32}", answer.pop("id"))
    assert answer.pop("created") > 1_700_000_000
    assert answer == {
        "object": "chat.completion",
        "model": "claude",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": 'Hello "wörld"\n',
                    "refusal": None,
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 132,
            "completion_tokens": 7,
            "total_tokens": 139,
            "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 20},
        },
    }


def test_a_whole_answer_holds_thinking() -> None:
    [choice] = whole(writer(), ANSWERS["thinking"])["choices"]

    assert choice["message"]["reasoning_content"] == "Let me see."
    assert choice["message"]["content"] == "Yes."


def test_a_whole_answer_holds_calls_whose_arguments_are_always_json() -> None:
    [choice] = whole(writer(), ANSWERS["tools"])["choices"]

    assert choice["finish_reason"] == "tool_calls"
    assert [
        (call["id"], call["type"], call["function"])
        for call in choice["message"]["tool_calls"]
    ] == [
        ("toolu_1", "function", {"name": "weather", "arguments": '{"city":"Rome"}'}),
        ("toolu_2", "function", {"name": "now", "arguments": "{}"}),
        ("toolu_3", "function", {"name": "add", "arguments": '{"a":1}'}),
    ]


@pytest.mark.parametrize(("reason", "told"), [("max_tokens", ""), ("tool_use", "{}")])
def test_a_call_that_was_cut_off_is_not_one_without_arguments(
    reason: StopReason, told: str
) -> None:
    events: Events = [ToolUseStart("1", "drop"), Usage(1, 1), Stop(reason)]

    [choice] = whole(writer(), events)["choices"]

    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == told


def test_a_whole_answer_of_calls_alone_has_no_content() -> None:
    [choice] = whole(writer(), ANSWERS["tools"][1:])["choices"]

    assert choice["message"]["content"] is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("text", "stop"),
        ("thinking", "stop"),
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
    ],
)
def test_a_whole_answer_says_why_it_ended(name: str, reason: str) -> None:
    [choice] = whole(writer(), ANSWERS[name])["choices"]

    assert choice["finish_reason"] == reason


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b'"role":"assistant",', b""),
        (b'"index":0,"delta"', b'"index":1,"delta"'),
        (b'"finish_reason":"stop"', b'"finish_reason":"end"'),
        (b"data: [DONE]\n\n", b""),
        (b'"model":"claude"', b'"model":"other"'),
        (b'{"content":"Hello"}', b'{"content":null}'),
    ],
)
def test_the_grammar_finds_what_is_wrong(was: bytes, becomes: bytes) -> None:
    stream = streamed(writer(), [TextDelta("Hello"), *ANSWERS["empty"]])
    assert grammar.check(grammar.parse(stream)) == "done"

    with pytest.raises(AssertionError):
        grammar.check(grammar.parse(stream.replace(was, becomes, 1)))
