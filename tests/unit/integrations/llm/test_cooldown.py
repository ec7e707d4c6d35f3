"""Pauses after failures."""

import pytest

from app.integrations.llm.base import ProviderThrottledError, ProviderUnavailableError
from app.integrations.llm.cooldown import (
    FAILURES,
    FIRST_SECONDS,
    LONGEST_SECONDS,
    PROBE_SECONDS,
    WINDOW_SECONDS,
    Cooldown,
)

AWAY = ProviderUnavailableError("away")


def cooled(times: int = FAILURES, now: float = 0) -> Cooldown:
    cooldown = Cooldown()
    for _ in range(times):
        cooldown.failed(AWAY, now)
    return cooldown


def test_some_failures_in_a_short_time_are_a_reason_to_pause() -> None:
    cooldown = cooled(FAILURES - 1)
    assert not cooldown.cools(0)

    assert cooldown.failed(AWAY, 0)

    assert cooldown.cools(FIRST_SECONDS - 0.01)
    assert not cooldown.cools(FIRST_SECONDS)


def test_the_same_in_a_long_time_are_none() -> None:
    cooldown = cooled(FAILURES - 1)

    assert not cooldown.failed(AWAY, WINDOW_SECONDS)
    assert not cooldown.cools(WINDOW_SECONDS)


def test_an_answer_between_them_counts() -> None:
    cooldown = cooled(FAILURES - 1)

    cooldown.succeeded()

    assert not cooldown.failed(AWAY, 0)


def test_answers_that_always_break_off_are_failures() -> None:
    cooldown = Cooldown()

    for second in range(FAILURES):
        cooldown.begin(second)
        cooldown.answered()
        cooldown.failed(AWAY, second)

    assert cooldown.cools(FAILURES)


def test_who_says_when_to_come_back_is_left_alone_at_once() -> None:
    cooldown = Cooldown()

    assert cooldown.failed(ProviderThrottledError("busy", retry_after=7), 0)

    assert cooldown.cools(6.9)
    assert not cooldown.cools(7)


def test_who_says_tomorrow_is_asked_sooner() -> None:
    cooldown = Cooldown()

    cooldown.failed(ProviderThrottledError("busy", retry_after=86_400), 0)

    assert not cooldown.cools(LONGEST_SECONDS)


def test_after_a_pause_one_call_tries_and_its_answer_ends_it() -> None:
    cooldown = cooled()

    cooldown.begin(FIRST_SECONDS)
    assert cooldown.cools(FIRST_SECONDS + 1)  # for the others
    cooldown.answered()

    assert not cooldown.cools(FIRST_SECONDS + 1)
    assert not cooldown.failed(AWAY, FIRST_SECONDS + 2)


def test_a_try_that_nobody_hears_of_again_ends_by_itself() -> None:
    """Whoever asked may have left."""
    cooldown = cooled()

    cooldown.begin(FIRST_SECONDS)

    assert not cooldown.cools(FIRST_SECONDS + PROBE_SECONDS)


def test_pauses_grow_up_to_a_bound_while_tries_fail() -> None:
    cooldown, now, pauses = cooled(), FIRST_SECONDS, []

    for _ in range(8):
        cooldown.begin(now)
        assert cooldown.failed(AWAY, now)
        begun = now
        while cooldown.cools(now):
            now += 1
        pauses.append(now - begun)

    assert pauses[:4] == [10, 20, 40, 80]
    assert pauses[-1] == LONGEST_SECONDS


@pytest.mark.parametrize("others", [1, 100])
def test_calls_that_began_before_the_pause_do_not_lengthen_it(others: int) -> None:
    cooldown = cooled()

    for _ in range(others):
        assert not cooldown.failed(AWAY, 1)

    assert not cooldown.cools(FIRST_SECONDS)
