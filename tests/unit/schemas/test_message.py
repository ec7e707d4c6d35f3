"""What a message may hold: text, images and documents, by their bytes alone."""

import base64
from typing import Any

import pytest
from pydantic import ValidationError

from app.integrations.parsing.base import MAX_IMAGE_BYTES
from app.schemas.message import MAX_DOCUMENT_BYTES, MessageCreate

FILES = {
    "image/png": b"\x89PNG\r\n\x1a\nrest",
    "image/jpeg": b"\xff\xd8\xff\xe0rest",
    "image/gif": b"GIF89arest",
    "image/webp": b"RIFF\x0a\n\0\0WEBPrest",
    "application/pdf": b"%PDF-1.7\nrest",
}


def file_block(media_type: str, data: bytes) -> dict[str, Any]:
    return {
        "type": "image" if media_type.startswith("image/") else "document",
        "source": {
            "type": "base64",
            "media_type": media_type,
            "data": base64.b64encode(data).decode(),
        },
    }


def refusal(*blocks: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        MessageCreate(content=list(blocks))
    return str(caught.value)


@pytest.mark.parametrize("media_type", FILES)
def test_images_and_documents_pass_as_they_are(media_type: str) -> None:
    block = file_block(media_type, FILES[media_type])
    blank = {"type": "text", "text": " "}

    form = MessageCreate(content=[blank, block])

    assert form.blocks == [block]


def test_a_text_document_may_have_a_title() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "A note."}
    block = {"type": "document", "source": source, "title": "Memo"}

    assert MessageCreate(content=[block]).blocks == [block]


@pytest.mark.parametrize("media_type", FILES)
def test_a_file_must_be_what_it_says(media_type: str) -> None:
    assert f"is no {media_type}" in refusal(file_block(media_type, b"<html>"))


@pytest.mark.parametrize(
    ("media_type", "limit"),
    [("image/png", MAX_IMAGE_BYTES), ("application/pdf", MAX_DOCUMENT_BYTES)],
)
def test_a_file_may_not_be_too_large(media_type: str, limit: int) -> None:
    largest = FILES[media_type].ljust(limit, b"\0")

    MessageCreate(content=[file_block(media_type, largest)])
    assert "is larger than" in refusal(file_block(media_type, largest + b"\0"))


@pytest.mark.parametrize("kind", ["image", "document"])
def test_nothing_is_fetched_from_an_address(kind: str) -> None:
    source = {"type": "url", "url": "http://169.254.169.254/"}

    assert "base64" in refusal({"type": kind, "source": source})


def test_what_is_no_base64_is_refused() -> None:
    block = file_block("image/png", b"")
    block["source"]["data"] = "!!!"

    assert "is no base64" in refusal(block)


def test_types_that_no_model_takes_are_refused() -> None:
    assert "media_type" in refusal(file_block("image/tiff", b"II*\0"))
    assert "tool_result" in refusal({"type": "tool_result", "tool_use_id": "1"})
    assert "must not be empty" in refusal({"type": "text", "text": " "})
