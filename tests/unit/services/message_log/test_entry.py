import json
from typing import Any

from app.services.message_log.entry import text_of


def read(*messages: dict[str, Any]) -> Any:
    text = text_of(messages)
    return json.loads(text) if text is not None else None


def message(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def test_messages_are_kept_as_they_are() -> None:
    messages = [message("Who?"), {"role": "assistant", "content": "Ω 🜁"}]

    assert read(*messages) == messages
    assert read() is None


def test_of_files_only_the_size_is_kept() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "abcd" * 100}
    content: list[Any] = [{"type": "image", "source": source}]
    asked = {"role": "user", "content": content}

    (kept,) = read(asked)

    assert kept["content"][0]["source"] == {**source, "data": "400 characters"}
    assert content[0]["source"]["data"] == "abcd" * 100


def test_where_there_is_too_much_the_newest_is_kept() -> None:
    long = "x" * 100_000

    kept = read(message("a" + long), message("b" + long), message("c" + long))

    assert kept == [{"left_out": 1}, message("b" + long), message("c" + long)]


def test_one_that_is_too_long_alone_is_left_out() -> None:
    assert read(message("x" * 300_000)) == [{"left_out": 1}]
