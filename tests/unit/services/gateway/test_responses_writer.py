from typing import Any

import pytest
from hypothesis import given

from app.integrations.llm.base import (
    Citation,
    Stop,
    StopReason,
    TextDelta,
    ToolUseStart,
    Usage,
)
from app.services.gateway.format import Writer
from app.services.gateway.responses import RESPONSES
from tests.grammar import openai_responses as grammar
from tests.grammar.provider_events import Events, answers, broken_answers
from tests.unit.services.gateway.transcripts import (
    ANSWERS,
    PROBLEM,
    golden,
    streamed,
    transcript,
    whole,
)


def writer(**fields: Any) -> Writer:
    ask = RESPONSES.read({"model": "m", "input": "Hi", "stream": True, **fields})
    return RESPONSES.writer(ask, "claude")


@pytest.mark.parametrize("name", ANSWERS)
def test_a_stream_reads_as_its_transcript(name: str) -> None:
    stream = streamed(writer(), ANSWERS[name])

    assert transcript(stream) == golden(f"responses_{name}.sse")


def test_a_stream_that_fails_ends_with_a_failed_response() -> None:
    """F3: no client takes it for a whole answer, and what came is in it."""
    cut = writer()

    stream = streamed(cut, ANSWERS["text"][:2]) + cut.fail(PROBLEM)

    assert transcript(stream) == golden("responses_failure.sse")


def test_usage_alone_begins_no_stream() -> None:
    """Until the first token the call can be made again, of another provider."""
    assert writer().write(Usage(1, 0)) == b""


@given(answers())
def test_every_answer_is_written_by_the_grammar(events: Events) -> None:
    stream = streamed(writer(), events)

    assert grammar.check(grammar.parse(stream)) in {"completed", "incomplete"}


@given(broken_answers())
def test_every_failure_is_written_by_the_grammar(events: Events) -> None:
    cut = writer()

    stream = streamed(cut, events) + cut.fail(PROBLEM)

    assert grammar.check(grammar.parse(stream)) == "failed"


@given(answers())
def test_a_stream_ends_with_the_whole_answer(events: Events) -> None:
    both = writer()

    *_, last = grammar.parse(streamed(both, events))

    assert last["response"] == both.whole()


def test_a_whole_answer_holds_text_and_usage() -> None:
    answer = whole(writer(), ANSWERS["text"])

    assert (answer["object"], answer["status"]) == ("response", "completed")
    assert answer["model"] == "claude"
    [message] = answer["output"]
    assert message["content"] == [
        {
            "type": "output_text",
            "text": 'Hello "wörld"\n',
            "annotations": [],
            "logprobs": [],
        }
    ]
    assert answer["usage"] == {
        "input_tokens": 132,
        "input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 20},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 139,
    }


def test_thinking_is_told_apart_where_its_provider_told_it() -> None:
    usage = Usage(1, 9, thinking_tokens=4)
    answer: Events = [TextDelta("Yes."), usage, Stop("end_turn")]

    told = whole(writer(), answer)["usage"]

    assert told["output_tokens"] == 9
    assert told["output_tokens_details"] == {"reasoning_tokens": 4}


def test_an_answer_repeats_what_it_was_asked_for() -> None:
    told = {
        "instructions": "Be brief.",
        "max_output_tokens": 100,
        "metadata": {"job": "7"},
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low"},
        "temperature": 0.5,
        "text": {"format": {"type": "json_object"}},
        "tools": [{"type": "function", "name": "now", "parameters": {}}],
        "tool_choice": "required",
        "user": "u",
    }

    answer = whole(writer(**told), ANSWERS["text"])

    assert {name: answer[name] for name in told} == told


def test_an_answer_says_that_it_is_not_stored() -> None:
    assert whole(writer(), ANSWERS["text"])["store"] is False


@pytest.mark.parametrize(
    ("name", "reason"),
    [("max_tokens", "max_output_tokens"), ("refusal", "content_filter")],
)
def test_an_answer_that_is_cut_off_is_incomplete(name: str, reason: str) -> None:
    answer = whole(writer(), ANSWERS[name])

    assert answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": reason}
    assert answer["output"][-1]["status"] == "incomplete"


@pytest.mark.parametrize(("reason", "told"), [("max_tokens", ""), ("tool_use", "{}")])
def test_a_call_that_was_cut_off_is_not_one_without_arguments(
    reason: StopReason, told: str
) -> None:
    events: Events = [ToolUseStart("1", "drop"), Usage(1, 1), Stop(reason)]

    [call] = whole(writer(), events)["output"]

    assert call["arguments"] == told


def test_a_citation_without_text_before_it_stands_in_a_message_of_its_own() -> None:
    events: Events = [Citation("a.txt", "quote", 0, 5), Usage(1, 1), Stop("end_turn")]

    [message] = whole(writer(), events)["output"]

    [annotation] = message["content"][0]["annotations"]
    assert annotation == {
        "type": "file_citation",
        "file_id": "a.txt",
        "filename": "a.txt",
        "index": 0,
    }


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (503, "provider_throttled", "rate_limit_exceeded"),
        (429, "rate_limited", "rate_limit_exceeded"),
        (503, "provider_unavailable", "server_error"),
        (400, "provider_rejected", "invalid_prompt"),
    ],
)
def test_a_failure_has_a_code_of_openai_s(status: int, code: str, told: str) -> None:
    cut = writer()

    cut.fail({**PROBLEM, "status": status, "code": code})

    assert cut.whole()["error"] == {"code": told, "message": PROBLEM["detail"]}


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b'"sequence_number":3', b'"sequence_number":4'),
        (b'"delta":"Hello"', b'"delta":"Hallo"'),
        (b"event: response.created", b"event: response.begun"),
        (b'"output_index":0', b'"output_index":1'),
        (b'"status":"completed","role"', b'"status":"in_progress","role"'),
        (b'"total_tokens":139', b'"total_tokens":1'),
    ],
)
def test_the_grammar_finds_what_is_wrong(was: bytes, becomes: bytes) -> None:
    stream = streamed(writer(), ANSWERS["text"])
    assert grammar.check(grammar.parse(stream)) == "completed"
    assert was in stream

    with pytest.raises(AssertionError):
        grammar.check(grammar.parse(stream.replace(was, becomes, 1)))
