import pytest

from app.integrations.llm.base import ChatMessage
from app.integrations.llm.tokens import TokenTally, estimate_input, estimate_tokens
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


def test_a_request_is_its_system_prompt_and_the_text_of_its_messages() -> None:
    image = {"type": "image", "source": {}}
    mixed = ChatMessage("user", [text("12345678"), image])

    assert estimate_input(ask("m", user("1234"), mixed, system="1234")) == 1 + 5 + 6
