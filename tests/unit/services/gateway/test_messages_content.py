"""What is said in requests of Anthropic's Messages API: system, turns, blocks."""

from typing import Any

import pytest

from app.integrations.llm.base import Block, ChatMessage
from tests.unit.services.gateway.asked import (
    CACHED,
    HI,
    NOTE,
    PDF,
    PNG,
    Json,
    given,
    read,
    refused,
    text,
    user,
)


class TestSystem:
    @pytest.mark.parametrize(
        ("system", "said"),
        [
            ("Be brief.", "Be brief."),
            ([{**text("a"), **CACHED}, text("b")], "a\n\nb"),
            ([], ""),
        ],
    )
    def test_it_is_a_text_or_blocks_of_text(self, system: Any, said: str) -> None:
        assert read(system=system).system == said

    @pytest.mark.parametrize(
        ("system", "told"),
        [
            (5, "system: must be a string or a list of blocks"),
            ([{"type": "image", "source": PNG}], "system.0.type: 'image' is not"),
            ([{**text("a"), "b": 1}], "system.0.b: is not supported for this model"),
        ],
    )
    def test_what_it_cannot_be(self, system: Any, told: str) -> None:
        assert refused(system=system).startswith(told)

    def test_system_messages_before_the_first_turn_join_it(self) -> None:
        said = {"role": "system", "content": [{**text("b"), **CACHED}]}

        request = read(system="a", messages=[said, HI])

        assert request.system == "a\n\nb"
        assert request.messages == [ChatMessage("user", [text("Hi")])]

    def test_later_ones_stay_at_their_place(self) -> None:
        answer = {"role": "assistant", "content": "Ho"}
        blank = {"role": "system", "content": ""}
        told = {"role": "system", "content": "Be brief."}

        request = read(messages=[HI, told, blank, answer, HI])

        assert request.system == ""
        assert request.messages == [
            ChatMessage("user", [text("Hi"), text("<system>\nBe brief.\n</system>")]),
            ChatMessage("assistant", [text("Ho")]),
            ChatMessage("user", [text("Hi")]),
        ]

    def test_one_for_a_turn_is_gone_after_that(self) -> None:
        def told(**until: str) -> list[Json]:
            note = {"role": "system", "content": "Now.", **until}
            return [HI, note, {"role": "assistant", "content": "Ho"}]

        gone = {"clear_at": "next_user_message"}

        assert len(read(messages=told(**gone)).messages[0].content) == 2
        assert len(read(messages=[*told(**gone), HI]).messages[0].content) == 1
        assert (
            len(read(messages=[*told(clear_at="never"), HI]).messages[0].content) == 2
        )


class TestMessages:
    def test_those_of_one_role_are_one_turn(self) -> None:
        empty = {"role": "assistant", "content": []}
        answer = {"role": "assistant", "content": "Ho"}

        assert read(messages=[HI, empty, HI, answer, answer]).messages == [
            ChatMessage("user", [text("Hi"), text("Hi")]),
            ChatMessage("assistant", [text("Ho"), text("Ho")]),
        ]

    def test_blank_text_which_no_model_takes_is_left_out(self) -> None:
        assert given(text(" \n"), text("a")) == [text("a")]
        assert "says something" in refused(messages=user(text("")))

    @pytest.mark.parametrize(
        ("message", "told"),
        [
            ({"content": "Hi"}, "messages.0.role: is required"),
            ({"role": "tool", "content": "x"}, "messages.0.role: must be one of user,"),
            ({"role": "user"}, "messages.0.content: is required"),
            ({"role": "user", "content": 5}, "messages.0.content: must be a string or"),
            ({**HI, "clear_at": "never"}, "messages.0.clear_at: is not supported for"),
            ({**HI, "name": "Ann"}, "messages.0.name: is not supported for this model"),
            (
                {"role": "system", "content": "a", "output_config": {"effort": "low"}},
                "messages.0.output_config: is not supported for this model here",
            ),
            (
                {"role": "system", "content": [{"type": "tool_addition"}]},
                "messages.0.content.0.type: 'tool_addition' is not supported for this",
            ),
        ],
    )
    def test_what_a_message_cannot_be(self, message: Json, told: str) -> None:
        assert refused(messages=[message]).startswith(told)


class TestBlocks:
    def test_text_with_its_citations(self) -> None:
        assert given({**text("a"), **CACHED, "citations": [{}]}) == [text("a")]

    @pytest.mark.parametrize("source", [PNG, {"type": "url", "url": "https://a.b/c"}])
    def test_images(self, source: Json) -> None:
        image = {"type": "image", "source": source}

        assert given({**image, **CACHED, "transformations": {}}) == [image]

    @pytest.mark.parametrize("source", [PDF, NOTE])
    def test_documents(self, source: Json) -> None:
        document = {"type": "document", "source": source}
        titled = {**document, "title": "Memo"}
        plain = {"citations": {"enabled": False}, **CACHED}

        assert given({**document, **plain}, {**titled, "context": "Of May."}) == [
            document,
            text("Of May."),
            titled,
        ]

    @pytest.mark.parametrize(
        ("content", "blocks"),
        [
            ("A note.", [text("A note.")]),
            (
                [text("See:"), {"type": "image", "source": PNG}],
                [text("See:"), {"type": "image", "source": PNG}],
            ),
        ],
    )
    def test_a_document_made_of_blocks_is_those(
        self, content: Any, blocks: list[Block]
    ) -> None:
        source = {"type": "content", "content": content}
        document = {"type": "document", "source": source, "title": "Memo"}

        assert given(document) == [text("Memo"), *blocks]

    def test_what_a_search_found_is_text(self) -> None:
        found = {"type": "search_result", "source": "https://a.b", "title": "Title"}
        told = {**found, "content": [text("one"), text("two")], **CACHED}

        assert given(told) == [text("Title\nhttps://a.b\n\none\n\ntwo")]

    @pytest.mark.parametrize(
        ("content", "kept"),
        [
            ("noon", "noon"),
            (None, ""),
            (
                [text("noon"), {"type": "image", "source": PNG}],
                [text("noon"), {"type": "image", "source": PNG}],
            ),
            ([{"type": "document", "source": NOTE}],) * 2,
            (
                [{"type": "tool_reference", "tool_name": "clock"}],
                [text("The tool clock can be called.")],
            ),
        ],
    )
    def test_results_of_tools(self, content: Any, kept: Any) -> None:
        result = {"type": "tool_result", "tool_use_id": "1"}
        told = {**result, "content": content, **CACHED}

        assert given(told, {**told, "is_error": True}, {**told, "is_error": False}) == [
            {**result, "content": kept},
            {**result, "content": kept, "is_error": True},
            {**result, "content": kept},
        ]

    def test_an_answer_with_thinking_and_a_call(self) -> None:
        call = {"type": "tool_use", "id": "1", "name": "clock", "input": {"a": 1}}
        thought = {"type": "thinking", "thinking": "Hm", "signature": "x"}
        hidden = {"type": "redacted_thinking", "data": "y"}
        unsigned = {"type": "thinking", "thinking": "Hm"}
        said = [thought, hidden, unsigned, text("So:")]
        sent = {**call, "caller": {"type": "direct"}, **CACHED}

        answer = read(messages=[HI, {"role": "assistant", "content": [*said, sent]}])

        unsigned["signature"] = ""
        assert list(answer.messages[1].content) == [*said, call]

    @pytest.mark.parametrize(
        ("block", "told"),
        [
            ({}, "type: is required"),
            ({"type": "text"}, "text: is required"),
            ({**text("a"), "b": 1}, "b: is not supported for this model here"),
            ({"type": "thinking"}, "type: 'thinking' is not supported for this model"),
            ({"type": "container_upload"}, "type: 'container_upload' is not supported"),
            ({"type": "image", "source": PDF}, "source.media_type: must be one of"),
            (
                {"type": "image", "source": {"type": "file", "file_id": "x"}},
                "source.type: must be one of base64, url",
            ),
            (
                {"type": "document", "source": {"type": "url", "url": "https://a.b"}},
                "source.type: must be one of base64, text, content",
            ),
            (
                {"type": "document", "source": PNG},
                "source.media_type: must be application/pdf",
            ),
            (
                {"type": "document", "source": PDF, "citations": {"enabled": True}},
                "citations.enabled: is not supported for this model here",
            ),
            (
                {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "x"}]},
                "content.0.type: 'x' is not supported for this model here",
            ),
            (
                {"type": "tool_result", "tool_use_id": "1", "toolset_name": "browser"},
                "toolset_name: is not supported for this model here",
            ),
        ],
    )
    def test_what_the_user_cannot_send(self, block: Json, told: str) -> None:
        assert refused(messages=user(block)).startswith(f"messages.0.content.0.{told}")

    @pytest.mark.parametrize(
        ("block", "told"),
        [
            ({"type": "image", "source": PNG}, "type: 'image' is not supported"),
            ({"type": "server_tool_use"}, "type: 'server_tool_use' is not supported"),
            ({"type": "web_search_tool_result"}, "type: 'web_search_tool_result' is"),
            ({"type": "tool_use", "id": "1"}, "name: is required"),
            (
                {
                    "type": "tool_use",
                    "id": "1",
                    "name": "a",
                    "input": {},
                    "caller": {"type": "code_execution_20260120", "tool_id": "x"},
                },
                "caller: is not supported for this model here",
            ),
        ],
    )
    def test_what_an_assistant_cannot_have_said(self, block: Json, told: str) -> None:
        messages = [HI, {"role": "assistant", "content": [block]}]

        assert refused(messages=messages).startswith(f"messages.1.content.0.{told}")
