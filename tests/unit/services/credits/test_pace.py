import pytest

from app.services.credits.pace import Minute


@pytest.mark.parametrize(
    ("seconds", "used"),
    [
        (600, 100),  # the same minute
        (659, 100),
        (660, 100),  # the next one: all of the last still counts
        (690, 50),  # half of it
        (719, 100 / 60),
        (720, 0),
        (6000, 0),
    ],
)
def test_tokens_fade_out_over_the_minute_after_theirs(
    seconds: float, used: float
) -> None:
    minute = Minute()
    minute.add(60, 600)
    minute.add(40, 610)

    assert minute.used(seconds) == pytest.approx(used)


def test_both_minutes_count() -> None:
    minute = Minute()
    minute.add(60, 600)
    minute.add(10, 675)

    assert minute.used(690) == pytest.approx(10 + 30)


def test_what_others_used_counts_as_they_told_it() -> None:
    minute = Minute()
    minute.add(60, 600)
    minute.hear(10, 60, (100, 20))
    minute.add(5, 610)

    assert minute.used(630) == pytest.approx(100 + 5 + 10)
    assert minute.untold == 5

    minute.hear(10, 5, (105, 20))
    assert minute.used(690) == pytest.approx(105 / 2)
    assert minute.untold == 0


def test_what_was_heard_of_another_minute_changes_nothing() -> None:
    minute = Minute()
    minute.add(60, 600)
    minute.add(7, 660)

    minute.hear(10, 60, (1000, 1000))

    assert minute.used(660) == 67
    assert minute.untold == 7


def test_what_could_not_be_told_for_long_is_told_no_more() -> None:
    minute = Minute()
    for seconds in (600, 660, 720):
        minute.add(10, seconds)

    assert minute.untold == 20
    minute.add(1, 6000)
    assert minute.untold == 1
