import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.exceptions import ValidationFailedError
from app.integrations.llm.base import ModelInfo, Source
from app.integrations.llm.tokens import estimate_tokens
from app.services.chat.context import (
    Context,
    InstructionsTooLongError,
    assemble,
)
from app.services.chat.history import Said
from app.services.chat.shares import Offer, Piece
from benchmarks.context_cases import case, faults


def model(window: int = 1000) -> ModelInfo:
    return ModelInfo("test/model", window, 100, frozenset({"text"}))


def message(role: str, text: str) -> Said:
    content = [{"type": "text", "text": text}] if text else []
    return Said(uuid4(), None, role, "complete", content)


def told(*turns: tuple[str, str]) -> list[Said]:
    """A history, written oldest first, handed over newest first."""
    return [message(role, text) for role, text in turns][::-1]


def system(text: str) -> list[Offer]:
    return [Offer("system", [Piece("the system prompt", text)], required=True)]


def plain(history: Sequence[Said], window: int = 1000, **more: Any) -> Context:
    return assemble(history, model=model(window), max_output_tokens=100, **more)


def texts(context: Context) -> list[str]:
    return [b["text"] for m in context.messages for b in m.content]


def test_all_of_a_short_history_is_seen() -> None:
    history = told(("user", "a"), ("assistant", "b"), ("user", "c"))

    seen = plain(history, offers=system("Be brief."))

    assert [(m.role, m.content[0]["text"]) for m in seen.messages] == [
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
    ]
    assert seen.system == "Be brief."
    assert seen.tokens > estimate_tokens("Be brief.")
    assert not seen.cut


def test_the_oldest_go_first_where_not_all_fits() -> None:
    long = "word " * 100
    history = told(
        ("user", long), ("assistant", long), ("user", "c"), ("assistant", "d"),
        ("user", "e"),
    )  # fmt: skip

    seen = plain(history, 260)

    assert texts(seen) == ["c", "d", "e"]
    assert seen.cut
    [(name, tokens, reason)] = seen.shares()[-1].dropped
    assert (name, tokens > 200) == ("2 of the oldest messages", True)
    assert "do not fit" in reason


def test_failed_replies_are_left_out_and_roles_alternate() -> None:
    history = told(("user", "a"), ("assistant", ""), ("user", "b"))

    seen = plain(history).messages

    assert len(seen) == 1
    assert [b["text"] for b in seen[0].content] == ["a", "b"]


def test_reasoning_is_not_sent_back() -> None:
    reply = message("assistant", "b")
    thinking = {"type": "thinking", "thinking": "hm"}
    reply = reply._replace(content=[thinking, *reply.content])
    history = [message("user", "c"), reply, message("user", "a")]

    assert texts(plain(history)) == ["a", "b", "c"]


@pytest.mark.parametrize("window", [0, 100, 200])
def test_a_message_that_cannot_fit_is_refused(window: int) -> None:
    with pytest.raises(ValidationFailedError) as refused:
        plain(told(("user", "word " * 400)), window)
    assert refused.value.errors[0]["path"] == "content"


def test_instructions_that_cannot_fit_are_an_error_and_not_left_out() -> None:
    history = told(("user", "a"))

    with pytest.raises(InstructionsTooLongError, match="about 502 tokens"):
        plain(history, 400, offers=system("word " * 401))


def test_a_summary_takes_the_place_of_all_above() -> None:
    history = told(("user", "a"), ("assistant", "b"), ("user", "c"), ("user", "d"))
    history[2] = history[2]._replace(summary="They greeted.")

    seen = plain(history)

    assert [m.role for m in seen.messages] == ["user"]
    assert "They greeted." in texts(seen)[0]
    assert texts(seen)[1:] == ["c", "d"]
    assert not seen.cut


def test_a_summary_of_the_message_that_is_continued_is_not_used() -> None:
    history = told(("user", "a"), ("assistant", "b"))
    history[0] = history[0]._replace(summary="They greeted.")

    assert texts(plain(history)) == ["a", "b"]


def test_what_was_not_looked_at_is_to_be_summed_up() -> None:
    history = told(("user", "a"))
    history[-1] = history[-1]._replace(parent_id=uuid4())

    assert plain(history).cut


class TestOffers:
    """In their order, each piece whole or not at all."""

    def offer(self, *sizes: int, **more: Any) -> Offer:
        pieces = [Piece(f"{n}", "x" * (4 * size)) for n, size in enumerate(sizes)]
        return Offer("knowledge", pieces, lead="Read this:", **more)

    def test_what_is_the_same_in_each_turn_stands_in_the_system_prompt(self) -> None:
        seen = plain(told(("user", "a")), offers=[*system("s"), self.offer(2, 3)])

        assert seen.system == "s\n\nRead this:\n\nxxxxxxxx\n\nxxxxxxxxxxxx"
        assert [share.origin for share in seen.shares()] == [
            "system", "knowledge", "history",
        ]  # fmt: skip
        assert [used.name for used in seen.shares()[1].used] == ["0", "1"]

    def test_what_differs_stands_before_the_question(self) -> None:
        history = told(("user", "a"), ("assistant", "b"), ("user", "c"))

        seen = plain(history, offers=[self.offer(2, stable=False, most=100)])

        assert texts(seen) == ["a", "b", "Read this:\n\nxxxxxxxx", "c"]
        assert seen.system == ""

    def test_a_piece_without_room_is_told_and_smaller_ones_go_in(self) -> None:
        offer = self.offer(300, 10, stable=False, most=100)

        seen = plain(told(("user", "a")), offers=[offer])

        assert [used.name for used in seen.shares()[0].used] == ["1"]
        [dropped] = seen.shares()[0].dropped
        assert dropped.name == "0"
        assert dropped.tokens >= 300

    def test_it_costs_nothing_where_no_piece_fits(self) -> None:
        seen = plain(told(("user", "a")), 150, offers=[self.offer(300)])

        assert seen.system == ""
        assert seen.shares()[0].tokens == 0

    def test_what_a_piece_quotes_from_goes_with_it(self) -> None:
        kept, left = (Source(name, name) for name in "ab")
        pieces = [Piece("a", "a", kept), Piece("b", "x" * 9000, left)]

        seen = plain(told(("user", "a")), offers=[Offer("knowledge", pieces)])

        assert seen.sources == [kept]


class TestPrefix:
    """What one turn sends and the next one sends again, so that it is cached."""

    def bodies(self, window: int, turns: int) -> list[list[str]]:
        """What is sent in each turn, block by block; each looks another thing up."""
        history: list[Said] = []
        sent = []
        for turn in range(turns):
            history.insert(0, message("user", f"Question {turn}? " + "word " * 30))
            found = Piece("found", f"passage {turn} " * (turn % 9))
            offers = [
                *system("Be brief."),
                Offer("knowledge", [found], stable=False, most=200),
            ]
            seen = plain(history, window, offers=offers)
            sent.append([seen.system, *texts(seen)])
            history.insert(0, message("assistant", f"Reply {turn}. " + "word " * 30))
        return sent

    def test_all_before_the_last_question_is_sent_again(self) -> None:
        bodies = self.bodies(100_000, 12)

        for before, after in pairwise(bodies):
            assert after[: len(before) - 2] == before[:-2]

    def test_a_full_window_begins_anew_only_now_and_then(self) -> None:
        bodies = self.bodies(2500, 60)

        begins = [body[1] for body in bodies]
        changes = sum(a != b for a, b in pairwise(begins))
        assert 2 <= changes <= 12


@given(st.randoms(use_true_random=False))
def test_the_budget_is_never_exceeded_and_no_instruction_lost(
    chance: random.Random,
) -> None:
    """By the estimate of the whole request, and of the body that a provider gets."""
    assert faults(case(chance)) == []
