"""Token buckets, by a clock that the test turns."""

import pytest

from app.integrations.llm.bucket import Bucket, Buckets
from tests.unit.integrations.llm.clock import Clock


def test_a_minute_s_worth_may_come_at_once_and_then_evenly() -> None:
    clock = Clock()
    bucket = Bucket(60, clock)

    bucket.take(60)
    assert bucket.wait(1) == pytest.approx(1)
    assert bucket.wait(30) == pytest.approx(30)
    clock.now += 10
    assert bucket.wait(10) == 0
    assert bucket.wait(11) == pytest.approx(1)


def test_it_never_holds_more_than_a_minute_s_worth() -> None:
    clock = Clock()
    bucket = Bucket(60, clock)

    clock.now += 3600
    bucket.take(60)
    assert bucket.wait(1) > 0
    bucket.take(-1000)  # as was given back of a call that took less than thought
    assert bucket.wait(60) == 0
    bucket.take(60)
    assert bucket.wait(1) > 0


def test_what_is_more_than_it_ever_holds_waits_for_it_to_be_full() -> None:
    clock = Clock()
    bucket = Bucket(60, clock)

    assert bucket.wait(1000) == 0
    bucket.take(1)
    assert bucket.wait(1000) == pytest.approx(1)


def test_what_was_taken_beyond_is_owed() -> None:
    clock = Clock()
    bucket = Bucket(60, clock)

    bucket.take(180)
    assert bucket.wait(1) == pytest.approx(121)


@pytest.mark.parametrize("seconds", [0.1, 1 / 3, 7.7])
def test_who_waited_as_long_as_told_need_not_wait_again(seconds: float) -> None:
    clock = Clock(seconds * 1e6)
    bucket = Bucket(7, clock)
    bucket.take(7.3)

    clock.now += bucket.wait(1)

    assert bucket.wait(1) == 0


def test_both_limits_hold_and_none_is_none() -> None:
    clock = Clock()
    both = Buckets(2, 100, clock=clock)
    neither = Buckets(None, None, clock=clock)

    both.take(90)
    assert both.wait(10) == 0
    assert both.wait(40) == pytest.approx(18)  # for 30 tokens
    both.take(1)
    assert both.wait(1) == pytest.approx(30)  # for a request
    for _ in range(1000):
        neither.take(1_000_000)
    assert neither.wait(1_000_000) == 0
