from uuid import UUID

import pytest

from app.integrations.llm.base import ModelInfo
from app.services.authorization import Principal
from app.services.gateway.cache import (
    MOST_BYTES,
    MOST_ENTRY,
    Answers,
    Kept,
    Name,
    name_of,
)
from app.services.gateway.chat_completions import CHAT_COMPLETIONS
from app.services.gateway.fields import Json
from app.services.gateway.format import Format
from app.services.gateway.incoming import Incoming
from app.services.gateway.messages import MESSAGES

USER = UUID(int=7)
KEY = UUID(int=1)
MODEL = ModelInfo("openai/small", 1000, 100, frozenset({"text"}))
ASKED: Json = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def named(number: int) -> Name:
    return Name(USER, KEY, CHAT_COMPLETIONS, number.to_bytes(32))


def kept(body: bytes = b"an answer", text: bytes = b"") -> Kept:
    return Kept(MODEL, body, text)


def as_large_as(size: int) -> Kept:
    return kept(bytes(size - kept(b"").size))


def test_an_answer_is_found_until_it_is_too_old_for_who_asks() -> None:
    clock = Clock()
    answers = Answers(clock=clock)
    answers.keep(named(1), kept())

    clock.seconds += 59.9
    assert answers.find(named(1), seconds=60) == kept()
    assert answers.find(named(2), seconds=60) is None

    # What is too old under the setting of now is let go.
    assert answers.find(named(1), seconds=30) is None
    assert answers.find(named(1), seconds=60) is None
    assert answers.size == 0


def test_being_found_makes_no_answer_younger_and_being_kept_again_does() -> None:
    clock = Clock()
    answers = Answers(clock=clock)
    for number in (1, 2):
        answers.keep(named(number), kept())
    clock.seconds += 40
    answers.find(named(1), seconds=60)
    answers.keep(named(2), kept(b"another"))

    clock.seconds += 20

    assert answers.find(named(1), seconds=60) is None
    assert answers.find(named(2), seconds=60) == kept(b"another")
    assert answers.size == kept(b"another").size


def test_the_least_recently_used_go_first_where_there_is_no_more_room() -> None:
    answers = Answers()
    most = MOST_BYTES // MOST_ENTRY
    for number in range(most):
        answers.keep(named(number), as_large_as(MOST_ENTRY))
    assert answers.size == MOST_BYTES
    answers.find(named(0), seconds=60)

    answers.keep(named(most), kept())

    found = [answers.find(named(n), seconds=60) is not None for n in range(most + 1)]
    assert found == [True, False, *[True] * (most - 1)]
    assert answers.size <= MOST_BYTES


def test_what_is_too_large_is_not_kept_and_what_it_replaces_goes() -> None:
    answers = Answers()
    answers.keep(named(1), kept())

    answers.keep(named(1), as_large_as(MOST_ENTRY + 1))

    assert answers.find(named(1), seconds=60) is None
    assert answers.size == 0


def test_the_text_for_the_log_counts() -> None:
    assert kept(b"body", b"text").size == kept(b"body").size + len(b"text")


async def name(
    body: Json = ASKED,
    *,
    key: UUID = KEY,
    format_: Format = CHAT_COMPLETIONS,
    betas: str = "",
    size: int = 100,
) -> Name:
    principal = Principal(user_id=UUID(int=9), session_id=key)
    return await name_of(
        Incoming(principal, format_, body, size=size, betas=betas), key
    )


async def test_equal_calls_have_one_name() -> None:
    turned = dict(reversed(ASKED.items()))

    # However large a body is, which is taken elsewhere then.
    assert await name(turned) == await name() == await name(size=2**20)


@pytest.mark.parametrize(
    "other",
    [
        {"key": UUID(int=2)},
        {"format_": MESSAGES},
        {"betas": "some-2025-01-01"},
        {"body": ASKED | {"stream": True}},
        {"body": ASKED | {"temperature": 1}},
        {"body": ASKED | {"messages": [*ASKED["messages"], *ASKED["messages"]]}},
    ],
)
async def test_other_calls_have_other_names(other: dict[str, object]) -> None:
    assert await name(**other) != await name()  # type: ignore[arg-type]  # as parametrized


def test_nothing_is_left_of_a_key_that_ends_or_of_a_user_who_goes() -> None:
    """D3."""
    for ended in ((frozenset([KEY]), None), (frozenset[UUID](), USER)):
        answers = Answers()
        other = named(2)._replace(user_id=UUID(int=8), key_id=UUID(int=9))
        answers.keep(named(1), kept())
        answers.keep(other, kept())

        answers.forget(*ended)

        assert answers.find(named(1), seconds=60) is None
        assert answers.find(other, seconds=60) is not None
