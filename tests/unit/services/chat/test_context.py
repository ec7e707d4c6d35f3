from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.exceptions import ValidationFailedError
from app.integrations.llm.base import ModelInfo
from app.integrations.llm.tokens import estimate_tokens
from app.services.chat.context import assemble
from app.services.chat.history import Said


def model(window: int = 1000) -> ModelInfo:
    return ModelInfo("test/model", window, 100, frozenset({"text"}))


def message(role: str, text: str) -> Said:
    content = [{"type": "text", "text": text}] if text else []
    return Said(uuid4(), None, role, "complete", content)


def told(*turns: tuple[str, str]) -> list[Said]:
    """A history, written oldest first, handed over newest first."""
    return [message(role, text) for role, text in turns][::-1]


def test_all_of_a_short_history_is_seen() -> None:
    history = told(("user", "a"), ("assistant", "b"), ("user", "c"))

    seen, estimate = assemble(
        history, system="Be brief.", model=model(), max_output_tokens=100
    )

    assert [(m.role, m.content[0]["text"]) for m in seen] == [
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
    ]
    assert estimate > estimate_tokens("Be brief.")


def test_the_oldest_go_first_where_not_all_fits() -> None:
    long = "word " * 100
    history = told(
        ("user", long), ("assistant", long), ("user", "c"), ("assistant", "d"),
        ("user", "e"),
    )  # fmt: skip

    seen, _ = assemble(history, system="", model=model(260), max_output_tokens=100)

    assert [m.content[0]["text"] for m in seen] == ["c", "d", "e"]


def test_failed_replies_are_left_out_and_roles_alternate() -> None:
    history = told(("user", "a"), ("assistant", ""), ("user", "b"))

    seen, _ = assemble(history, system="", model=model(), max_output_tokens=100)

    assert len(seen) == 1
    assert [b["text"] for b in seen[0].content] == ["a", "b"]


def test_reasoning_is_not_sent_back() -> None:
    reply = message("assistant", "b")
    thinking = {"type": "thinking", "thinking": "hm"}
    reply = reply._replace(content=[thinking, *reply.content])
    history = [message("user", "c"), reply, message("user", "a")]

    seen, _ = assemble(history, system="", model=model(), max_output_tokens=100)

    assert [b["type"] for m in seen for b in m.content] == ["text"] * 3


@pytest.mark.parametrize("window", [0, 100, 200])
def test_a_message_that_cannot_fit_is_refused(window: int) -> None:
    with pytest.raises(ValidationFailedError) as refused:
        assemble(
            told(("user", "word " * 400)),
            system="",
            model=model(window),
            max_output_tokens=100,
        )
    assert refused.value.errors[0]["path"] == "content"


@given(
    texts=st.lists(st.text(max_size=400), min_size=1, max_size=30),
    window=st.integers(120, 2000),
    system=st.text(max_size=100),
)
def test_the_budget_is_never_exceeded(
    texts: list[str], window: int, system: str
) -> None:
    roles = ["user" if n % 2 == 0 else "assistant" for n in range(len(texts))]
    history = told(*zip(roles, texts, strict=True))
    try:
        seen, estimate = assemble(
            history, system=system, model=model(window), max_output_tokens=100
        )
    except ValidationFailedError:
        return
    assert estimate <= window - 100
    assert [m.role for m in seen] == [
        "user" if n % 2 == 0 else "assistant" for n in range(len(seen))
    ]
