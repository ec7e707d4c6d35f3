"""The Messages API's format: bodies, continuations, and every event of a stream."""

from dataclasses import replace
from typing import Any, ClassVar

import pytest

from app.integrations.llm.base import (
    ChatMessage,
    Citation,
    ProviderAuthError,
    ProviderError,
    ProviderEvent,
    ProviderRejectedError,
    ProviderStreamBrokenError,
    ProviderThrottledError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RedactedThinking,
    Stop,
    TextDelta,
    ThinkingDelta,
    ToolInputDelta,
    ToolUseStart,
    Usage,
)
from app.integrations.llm.messages_api import (
    GO_ON,
    MessagesReader,
    continued,
    message_body,
)
from tests.unit.integrations.llm.calls import ask, assistant, text, user

Event = dict[str, Any]

STOP: Event = {"type": "message_stop"}


def start(**usage: int | None) -> Event:
    return {"type": "message_start", "message": {"usage": usage}}


def begin(block: Event) -> Event:
    return {"type": "content_block_start", "index": 0, "content_block": block}


def delta(**fields: Any) -> Event:
    return {"type": "content_block_delta", "index": 0, "delta": fields}


def text_delta(words: str) -> Event:
    return delta(type="text_delta", text=words)


def message_delta(reason: str | None, **usage: int | None) -> Event:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


def reader(repeated: str = "") -> MessagesReader:
    return MessagesReader("Claude", ask("m", user("12345678")), repeated=repeated)


def read(*events: Event, repeated: str = "") -> list[ProviderEvent]:
    reply = reader(repeated)
    found = list(reply.read(events))
    reply.end()
    return found


def joined(events: list[ProviderEvent]) -> str:
    return "".join(e.text for e in events if isinstance(e, TextDelta))


class TestBody:
    def test_blocks_pass_through_as_they_are(self) -> None:
        image = {"type": "image", "source": {"type": "base64", "data": "eA=="}}
        message = ChatMessage("user", [image, text("What is that?")])

        request = ask("m", message, system="Be brief.")
        body, cut = message_body(request, capabilities={"prefill"})

        assert body == {
            "max_tokens": 4096,
            "system": [text("Be brief.")],
            "messages": [{"role": "user", "content": [image, text("What is that?")]}],
        }
        assert cut == ""

    def test_an_empty_system_prompt_is_left_out(self) -> None:
        assert "system" not in message_body(ask("m"), capabilities=())[0]


class TestCacheMarks:
    MARK: ClassVar = {"type": "ephemeral"}

    def body(self, *messages: ChatMessage, **fields: Any) -> Any:
        request = replace(ask("m", *messages), **fields)
        return message_body(request, capabilities={"prompt_caching"})[0]

    def test_they_end_the_system_prompt_and_the_last_but_one_question(self) -> None:
        messages = [
            user("a", "b"),
            assistant("c"),
            user("d"),
            assistant("e"),
            user("f"),
        ]

        body = self.body(*messages, system="Be brief.")

        assert body["system"][-1]["cache_control"] == self.MARK
        assert [
            "cache_control" in block
            for message in body["messages"]
            for block in message["content"]
        ] == [False, False, False, True, False, False]
        assert messages[2] == user("d")

    def test_tools_are_marked_where_there_is_no_system_prompt(self) -> None:
        tools = [{"name": "a"}, {"name": "b"}]

        marked = [{"name": "a"}, {"name": "b", "cache_control": self.MARK}]
        assert self.body(tools=tools)["tools"] == marked
        assert self.body(tools=tools, system="x")["tools"] == tools

    def test_a_model_without_the_capability_gets_none(self) -> None:
        messages = [user("a"), assistant("b"), user("c")]
        request = ask("m", *messages, system="x")

        assert "cache_control" not in str(message_body(request, capabilities=()))


class TestContinuation:
    def test_there_is_none_where_the_user_spoke_last(self) -> None:
        messages = [user("a"), assistant("b "), user("c")]

        assert continued(messages, prefill=True) == (messages, "")
        assert continued([], prefill=True) == ([], "")

    def test_a_prefill_loses_the_blank_end_of_its_text(self) -> None:
        messages = [user("a"), assistant("one ", "two \n")]

        assert continued(messages, prefill=True) == (
            [user("a"), assistant("one ", "two")],
            " \n",
        )
        assert messages[1] == assistant("one ", "two \n")

    def test_a_prefill_may_end_with_another_block(self) -> None:
        tool: Event = {"type": "tool_use", "id": "1", "name": "clock", "input": {}}
        last = ChatMessage("assistant", [text("one "), tool])

        assert continued([user("a"), last], prefill=True) == ([user("a"), last], "")

    def test_without_prefill_the_model_is_asked_to_go_on(self) -> None:
        messages = [user("a"), assistant("one ")]

        assert continued(messages, prefill=False) == ([*messages, user(GO_ON)], "")

    @pytest.mark.parametrize("prefill", [True, False])
    def test_blank_text_and_unsigned_thinking_are_left_out(
        self, *, prefill: bool
    ) -> None:
        thought = {"type": "thinking", "thinking": "Hm"}
        last = ChatMessage("assistant", [{**thought, "signature": ""}, text(" \n")])
        signed = {**thought, "signature": "x"}
        kept = ChatMessage("assistant", [signed, *last.content, text("one")])

        assert continued([user("a"), last], prefill=prefill) == ([user("a")], "")
        assert continued([user("a"), kept], prefill=prefill)[0][1] == (
            ChatMessage("assistant", [signed, text("one")])
        )


class TestEvents:
    def test_a_whole_answer(self) -> None:
        empty = {"type": "text", "text": ""}
        assert read(
            start(input_tokens=10, output_tokens=1, cache_read_input_tokens=None),
            {"type": "ping"},
            {"type": "content_block_start", "index": 0, "content_block": empty},
            text_delta("Hello"),
            text_delta(" you"),
            {"type": "content_block_stop", "index": 0},
            message_delta("end_turn", output_tokens=7),
            STOP,
        ) == [
            Usage(10, 1),
            TextDelta("Hello"),
            TextDelta(" you"),
            Usage(10, 7),
            Stop("end_turn"),
        ]

    def test_thinking_and_its_signature(self) -> None:
        assert read(
            start(input_tokens=1, output_tokens=1),
            delta(type="thinking_delta", thinking=""),
            delta(type="thinking_delta", thinking="Hm"),
            delta(type="signature_delta", signature="c2ln"),
            message_delta("end_turn", output_tokens=2),
            STOP,
        )[1:3] == [ThinkingDelta("Hm"), ThinkingDelta("", "c2ln")]

    def test_text_may_come_with_the_start_of_its_block(self) -> None:
        block = {"type": "content_block_start", "content_block": text("Hi")}

        assert joined(read(block, message_delta("end_turn"), STOP)) == "Hi"

    def test_citations_by_character(self) -> None:
        place = {"type": "char_location", "cited_text": "grün", "document_index": 1}
        place |= {"start_char_index": 3, "end_char_index": 7}
        titled = {**place, "document_title": "Colours"}
        page = {"type": "page_location", "cited_text": "x", "start_page_number": 1}

        assert read(
            delta(type="citations_delta", citation=place),
            delta(type="citations_delta", citation=titled),
            delta(type="citations_delta", citation=page),
            message_delta("end_turn"),
            STOP,
        )[:2] == [
            Citation("document 2", "grün", 3, 7),
            Citation("Colours", "grün", 3, 7),
        ]

    def test_a_call_of_a_tool_in_pieces(self) -> None:
        tool = {"type": "tool_use", "id": "1", "name": "clock", "input": {}}
        assert read(
            begin(tool),
            delta(type="input_json_delta", partial_json=""),
            delta(type="input_json_delta", partial_json='{"zone": '),
            delta(type="input_json_delta", partial_json='"UTC"}'),
            message_delta("tool_use", input_tokens=1, output_tokens=9),
            STOP,
        ) == [
            ToolUseStart("1", "clock"),
            ToolInputDelta('{"zone": '),
            ToolInputDelta('"UTC"}'),
            Usage(1, 9),
            Stop("tool_use"),
        ]

    def test_a_call_of_a_tool_may_come_whole(self) -> None:
        tool = {"type": "tool_use", "id": "1", "name": "clock", "input": {"a": 1}}

        assert read(begin(tool), message_delta("tool_use"), STOP)[0] == (
            ToolUseStart("1", "clock", '{"a":1}')
        )

    def test_reasoning_that_only_the_provider_reads(self) -> None:
        hidden = {"type": "redacted_thinking", "data": "c2VjcmV0"}

        assert read(begin(hidden), message_delta("end_turn"), STOP)[0] == (
            RedactedThinking("c2VjcmV0")
        )

    def test_what_is_new_or_not_ours_is_skipped(self) -> None:
        own = {"type": "server_tool_use", "id": "1", "name": "web_search", "input": {}}

        events = read(
            begin(own),
            delta(type="input_json_delta", partial_json="{"),
            {"type": "from_the_future"},
            message_delta("end_turn"),
            STOP,
        )

        assert [type(event) for event in events] == [Usage, Stop]

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            ("end_turn", "end_turn"),
            ("max_tokens", "max_tokens"),
            ("stop_sequence", "stop_sequence"),
            ("tool_use", "tool_use"),
            ("refusal", "refusal"),
            ("pause_turn", "max_tokens"),
            ("model_context_window_exceeded", "max_tokens"),
            ("from_the_future", "end_turn"),
        ],
    )
    def test_stop_reasons(self, theirs: str, ours: str) -> None:
        last = read(message_delta(theirs), STOP)[-1]

        assert isinstance(last, Stop)
        assert last.reason == ours

    @pytest.mark.parametrize(
        ("type_", "error"),
        [
            ("overloaded_error", ProviderUnavailableError),
            ("api_error", ProviderUnavailableError),
            ("rate_limit_error", ProviderThrottledError),
            ("timeout_error", ProviderTimeoutError),
            ("invalid_request_error", ProviderRejectedError),
            ("not_found_error", ProviderRejectedError),
            ("request_too_large", ProviderRejectedError),
            ("authentication_error", ProviderAuthError),
            ("permission_error", ProviderAuthError),
            ("billing_error", ProviderAuthError),
            ("from_the_future", ProviderUnavailableError),
        ],
    )
    def test_an_error_is_classified_by_its_type(
        self, type_: str, error: type[ProviderError]
    ) -> None:
        event = {"type": "error", "error": {"type": type_, "message": "The reason."}}

        with pytest.raises(error, match=type_) as caught:
            list(reader().read([event]))

        told_to_all = error is not ProviderAuthError
        assert ("The reason." in caught.value.detail) == told_to_all


class TestUsage:
    def test_later_figures_replace_earlier_ones_and_zero_is_a_figure(self) -> None:
        events = read(
            start(input_tokens=10, output_tokens=3, cache_read_input_tokens=5),
            text_delta("Hello"),
            message_delta("end_turn", output_tokens=0, cache_creation_input_tokens=2),
            STOP,
        )

        assert [e for e in events if isinstance(e, Usage)] == [
            Usage(10, 3, cache_read_tokens=5),
            Usage(10, 0, cache_read_tokens=5, cache_write_tokens=2),
        ]

    def test_thinking_is_told_apart_where_it_is_told(self) -> None:
        details = {"output_tokens_details": {"thinking_tokens": 4}}
        end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
        usage = {"usage": {"output_tokens": 9, **details}}

        events = read(
            start(input_tokens=1), text_delta("Hello"), {**end, **usage}, STOP
        )

        assert events[-2] == Usage(1, 9, thinking_tokens=4)

    def test_figures_that_nobody_tells_are_estimated(self) -> None:
        events = read(
            {"type": "message_start", "message": {}},
            delta(type="thinking_delta", thinking="1234"),
            text_delta("12345678"),
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
            STOP,
        )

        assert [e for e in events if isinstance(e, Usage)] == [
            Usage(6, 0, estimated=True),
            Usage(6, 3, estimated=True),
        ]


class TestRepeatedWhiteSpace:
    @pytest.mark.parametrize(
        ("cut", "said", "kept"),
        [
            (" ", [" two"], "two"),
            (" ", ["two"], "two"),
            ("\n\n", ["\n", "\n", "two"], "two"),
            ("\n\n", ["\n", "- two"], "- two"),
            ("\n", [" \ntwo"], " \ntwo"),
            (" ", [" ", " two"], " two"),
            ("", [" two"], " two"),
        ],
    )
    def test_what_was_cut_off_is_not_doubled(
        self, cut: str, said: list[str], kept: str
    ) -> None:
        deltas = [text_delta(words) for words in said]

        events = read(*deltas, message_delta("end_turn"), STOP, repeated=cut)

        assert joined(events) == kept


class TestBrokenAnswers:
    def test_one_without_its_last_event(self) -> None:
        with pytest.raises(ProviderStreamBrokenError, match="broke off"):
            read(text_delta("Hello"), message_delta("end_turn"))

    def test_one_that_does_not_say_why_it_stopped(self) -> None:
        with pytest.raises(ProviderStreamBrokenError, match="why it stopped"):
            read(text_delta("Hello"), message_delta(None), STOP)

    @pytest.mark.parametrize(
        "event",
        [
            {},
            {"type": "content_block_delta"},
            {"type": "message_start", "message": None},
            delta(type="text_delta", text=5),
        ],
    )
    def test_an_event_of_an_unknown_shape(self, event: Event) -> None:
        with pytest.raises(ProviderStreamBrokenError, match="shape"):
            list(reader().read([event]))
