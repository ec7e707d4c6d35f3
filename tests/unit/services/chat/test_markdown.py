"""A message as Markdown, block by block."""

from typing import Any

import pytest

from app.models import Message
from app.services.chat.markdown import section

PNG = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "aW1n"},
}
SHOWN = "![Image](data:image/png;base64,aW1n)"


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def document(media_type: str, **fields: str) -> dict[str, Any]:
    source = {"type": "base64", "media_type": media_type, "data": "JVBERi0="}
    return {"type": "document", "source": source, **fields}


def call(input_json: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": "1", "name": "clock", "input_json": input_json}


def written(*content: dict[str, Any], role: str = "user", **fields: Any) -> str:
    """What stands under the heading."""
    values = {"citations": [], "status": "complete", **fields}
    whole = section(Message(role=role, content=list(content), **values))
    heading, _, rest = whole.removeprefix("\n").partition("\n\n")
    assert heading.startswith("## ")
    return rest.removesuffix("\n")


def test_texts_are_paragraphs() -> None:
    assert written(text(" Hello"), text(" "), text("you\n")) == "Hello\n\nyou"


def test_an_image_is_in_the_file_where_it_was_in_the_message() -> None:
    assert written(text("Left:"), PNG, text("Right:"), PNG) == (
        f"Left:\n\n{SHOWN}\n\nRight:\n\n{SHOWN}"
    )


@pytest.mark.parametrize(
    ("block", "line"),
    [
        (document("application/pdf", title="My [1] *plan*.pdf"),
         r"**Document:** My \[1\] \*plan\*.pdf (PDF)"),
        (document("text/plain", title="Memo"), "**Document:** Memo (text)"),
        (document("application/pdf"), "**Document:** untitled (PDF)"),
    ],
)  # fmt: skip
def test_a_document_is_named_and_no_more(block: dict[str, Any], line: str) -> None:
    assert written(block) == line


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ('{"zone":"UTC"}', '{\n  "zone": "UTC"\n}'),
        ('{"zone": "U', '{"zone": "U'),
        ("", ""),
    ],
)
def test_a_call_of_a_tool_can_be_read(given: str, shown: str) -> None:
    assert written(call(given)) == f"**Tool call:** clock\n\n```json\n{shown}\n```"


def test_no_text_of_a_call_ends_its_fence() -> None:
    fence = "`" * 5

    assert written(call("````\n# big")).endswith(f"{fence}json\n````\n# big\n{fence}")


def test_what_tools_tell_can_be_read() -> None:
    result = {"type": "tool_result", "tool_use_id": "1"}

    assert written({**result, "content": "12:00"}) == (
        "**Tool result:**\n\n```\n12:00\n```"
    )
    assert written({**result, "content": [text("Look:"), PNG], "is_error": True}) == (
        f"**Tool error:**\n\n```\nLook:\n```\n\n{SHOWN}"
    )
    assert written(result) == "**Tool result:**\n\n```\n\n```"


def test_reasoning_is_left_out_and_a_break_is_told() -> None:
    thought = {"type": "thinking", "thinking": "Hm"}
    hidden = {"type": "redacted_thinking", "data": "x"}
    sources = [{"source": "a.md"}, {"source": "b.md"}, {"source": "a.md"}]

    shown = written(
        thought, hidden, text("Yes"), role="assistant", status="stopped",
        citations=sources,
    )  # fmt: skip

    assert shown == "Yes\n\nSources: a.md, b.md\n\n*(stopped)*"
