"""What a model takes, and what OpenAI's format has a form for."""

from dataclasses import replace
from typing import Any

import pytest

from app.integrations.llm.base import (
    Block,
    ChatMessage,
    ModelInfo,
    ProviderRejectedError,
)
from app.integrations.llm.blocks import require_capabilities
from app.integrations.llm.chat_completions import chat_messages, functions
from tests.unit.integrations.llm.calls import ask, text, user

PNG = {"type": "base64", "media_type": "image/png", "data": "aWc="}
IMAGE: Block = {"type": "image", "source": PNG}
LINKED: Block = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
PDF: Block = {
    "type": "document",
    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
}
NOTE: Block = {
    "type": "document",
    "source": {"type": "text", "media_type": "text/plain", "data": "A note."},
}
CALL: Block = {"type": "tool_use", "id": "1", "name": "clock", "input": {"a": 1}}
RESULT: Block = {"type": "tool_result", "tool_use_id": "1", "content": "noon"}
TOOL = {"name": "clock", "description": "Time", "input_schema": {"type": "object"}}


def model(*capabilities: str) -> ModelInfo:
    return ModelInfo("x/blind", 1000, 100, frozenset({"text", *capabilities}))


class TestCapabilities:
    @pytest.mark.parametrize(
        ("block", "needed"),
        [
            (IMAGE, "vision"),
            (LINKED, "vision"),
            (PDF, "documents"),
            (CALL, "tools"),
            (RESULT, "tools"),
            ({**RESULT, "content": [IMAGE]}, "vision"),
        ],
    )
    def test_a_block_needs_one(self, block: Block, needed: str) -> None:
        request = ask("blind", ChatMessage("user", [text("Look:"), block]))
        able = model("vision", "documents", "tools")
        without = replace(able, capabilities=able.capabilities - {needed})

        require_capabilities(request, able)
        with pytest.raises(ProviderRejectedError):
            require_capabilities(request, without)

    def test_the_error_names_the_model_and_what_it_takes(self) -> None:
        with pytest.raises(ProviderRejectedError) as caught:
            require_capabilities(
                ask("blind", ChatMessage("user", [IMAGE])), model("documents")
            )

        assert str(caught.value) == (
            "x/blind takes no block of type 'image': it takes text, documents. "
            "Where that is wrong, an admin can register what it takes."
        )

    def test_text_is_for_all(self) -> None:
        thought = {"type": "thinking", "thinking": "Hm"}
        message = ChatMessage("user", [text("a"), NOTE, thought])

        require_capabilities(ask("blind", message), model())

    def test_tools_need_it_too(self) -> None:
        with pytest.raises(ProviderRejectedError, match="no tools"):
            require_capabilities(replace(ask("blind"), tools=[TOOL]), model())


class TestChatCompletions:
    def written(self, *messages: ChatMessage, takes_files: bool = True) -> Any:
        return chat_messages(ask("m", *messages), "api", takes_files=takes_files)

    def test_images_and_files_are_parts(self) -> None:
        message = ChatMessage("user", [text("Look:"), IMAGE, LINKED, PDF])

        assert self.written(message) == [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look:"},
                    {
                        "type": "image_url",
                        "image_url": {"url": "data:image/png;base64,aWc="},
                    },
                    {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                    {
                        "type": "file",
                        "file": {
                            "filename": "document.pdf",
                            "file_data": "data:application/pdf;base64,JVBERg==",
                        },
                    },
                ],
            }
        ]

    def test_a_text_document_is_text(self) -> None:
        titled = {**NOTE, "title": "Memo"}

        [message] = self.written(ChatMessage("user", [text("Read:"), NOTE, titled]))

        assert message["content"] == "Read:\n\nA note.\n\nMemo\n\nA note."

    def test_calls_and_their_results(self) -> None:
        thought = {"type": "redacted_thinking", "data": "x"}
        answer = ChatMessage("assistant", [thought, CALL])
        told = ChatMessage("user", [RESULT, text("So?")])

        assert self.written(user("Time?"), answer, told)[1:] == [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "clock", "arguments": '{"a":1}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "noon"},
            {"role": "user", "content": "So?"},
        ]

    def test_a_result_alone_is_no_empty_question(self) -> None:
        [only] = self.written(ChatMessage("user", [RESULT]))

        assert only["role"] == "tool"

    def test_what_a_tool_tells_is_text_and_images_that_the_user_shows(self) -> None:
        content = [text("See:"), {**NOTE, "title": "Memo"}, IMAGE]
        told = {**RESULT, "content": content, "is_error": True}

        result, shown = self.written(ChatMessage("user", [told]))

        said = "The tool failed:\n\nSee:\n\nMemo\n\nA note."
        assert result == {"role": "tool", "tool_call_id": "1", "content": said}
        assert [part["type"] for part in shown["content"]] == ["image_url"]

    @pytest.mark.parametrize(
        "block", [PDF, {"type": "audio"}, {**RESULT, "content": [PDF]}]
    )
    def test_what_has_no_form_is_refused_by_name(self, block: Block) -> None:
        with pytest.raises(ProviderRejectedError, match="api takes no block of type"):
            self.written(ChatMessage("user", [block]), takes_files=False)
        with pytest.raises(ProviderRejectedError, match="'image'"):
            self.written(user("a"), ChatMessage("assistant", [IMAGE]), user("b"))

    def test_tools_are_functions(self) -> None:
        strict = {"name": "plain", "strict": True}

        assert functions([TOOL, strict]) == [
            {
                "type": "function",
                "function": {
                    "name": "clock",
                    "description": "Time",
                    "parameters": {"type": "object"},
                },
            },
            {
                "type": "function",
                "function": {
                    "name": "plain",
                    "description": "",
                    "parameters": {"type": "object"},
                    "strict": True,
                },
            },
        ]
