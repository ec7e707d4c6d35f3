"""What all providers share."""

from collections.abc import Iterator

import pytest

from app.integrations.llm.base import (
    ProviderEvent,
    ProviderStreamBrokenError,
    Stop,
    TextDelta,
    ThinkingDelta,
    Usage,
    joined,
)


def test_texts_that_follow_each_other_become_one() -> None:
    events: list[ProviderEvent] = [
        Usage(1, 0),
        TextDelta("a"),
        TextDelta("b"),
        ThinkingDelta("c"),
        ThinkingDelta("d"),
        TextDelta("e"),
        Stop("end_turn"),
    ]

    assert list(joined(events)) == [
        Usage(1, 0),
        TextDelta("ab"),
        ThinkingDelta("c"),
        ThinkingDelta("d"),
        TextDelta("e"),
        Stop("end_turn"),
    ]
    assert list(joined(events[:3])) == [Usage(1, 0), TextDelta("ab")]
    assert list(joined([])) == []


def test_what_came_before_an_error_is_given_before_it() -> None:
    def broken() -> Iterator[ProviderEvent]:
        yield TextDelta("a")
        yield TextDelta("b")
        raise ProviderStreamBrokenError("The checksum is wrong.")

    events = joined(broken())

    assert next(events) == TextDelta("ab")
    with pytest.raises(ProviderStreamBrokenError, match="checksum"):
        next(events)
