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
