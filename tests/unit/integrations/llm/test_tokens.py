from dataclasses import replace

import pytest

from app.integrations.llm.base import ChatMessage
from app.integrations.llm.blocks import FileBlock
from app.integrations.llm.tokens import (
    DOCUMENT_TOKENS,
    TokenTally,
    estimate_blocks,
    estimate_body,
    estimate_input,
    estimate_tokens,
)
from tests.unit.integrations.llm.calls import ask, text, user


@pytest.mark.parametrize(
    ("words", "tokens"),
    [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("漢字漢字", 3), ("\ud800", 1)],
)
def test_four_bytes_are_a_token(words: str, tokens: int) -> None:
    assert estimate_tokens(words) == tokens


def test_pieces_count_as_the_whole() -> None:
    tally = TokenTally()
    for piece in ("a", "b", "c", "d", "ef"):
        tally.add(piece)

    assert tally.tokens == estimate_tokens("abcdef")


def test_a_request_is_its_system_prompt_and_its_messages() -> None:
    mixed = ChatMessage("user", [text("12345678"), {"type": "thinking"}])

    assert estimate_input(ask("m", user("1234"), mixed, system="1234")) == 1 + 5 + 6


def test_images_and_documents_count_as_much_as_they_may() -> None:
    image = {"type": "image", "source": {}}
    plain = {"type": "document", "source": {"type": "text", "data": "12345678"}}
    pdf = {"type": "document", "source": {"type": "base64", "data": "x" * 64_000}}
    result = {"type": "tool_result", "content": [image, text("1234")]}

    assert estimate_blocks([image]) == 1600
    assert estimate_blocks([plain]) == 2
    assert estimate_blocks([pdf]) == 4000
    assert estimate_blocks([result]) == 1601


def test_tools_and_their_use_are_counted() -> None:
    tool = {"name": "clock", "input_schema": {"type": "object"}}
    call = {"type": "tool_use", "input": {"a": 1}}
    without = estimate_input(ask("m"))

    assert estimate_input(replace(ask("m"), tools=[tool])) > without + 10
    assert estimate_blocks([call, {"type": "tool_result", "content": "1234"}]) == 3


def test_the_schema_of_an_answer_is_counted() -> None:
    wanted = {"type": "json_schema", "name": "a", "schema": {"type": "object"}}
    without = estimate_input(ask("m"))

    assert estimate_input(replace(ask("m"), output_format=wanted)) == without + 5
    assert estimate_input(replace(ask("m"), output_format={"type": "json"})) == without


def test_a_client_s_body_counts_as_the_request_that_it_makes() -> None:
    tool = {"name": "clock", "input_schema": {"type": "object"}}
    request = replace(ask("m", user("1234"), system="123456789"), tools=[tool])
    message = {"role": "user", "content": "1234"}
    body = {"system": "123456789", "messages": [message], "tools": [tool]}

    assert estimate_body(body) == estimate_input(request)
    assert estimate_body(
        {**body, "system": [text("123456789")], "messages": [{"content": [text("1")]}]}
    ) == estimate_input(request)
    assert estimate_body({"messages": []}) == 0


def test_a_pdf_whose_pages_are_known_is_estimated_by_them() -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": "A" * 6400}
    known = FileBlock(type="document", source=source)
    known.pages = 20

    assert estimate_blocks([dict(known)]) == DOCUMENT_TOKENS + 100
    assert estimate_blocks([known]) == 20 * DOCUMENT_TOKENS
