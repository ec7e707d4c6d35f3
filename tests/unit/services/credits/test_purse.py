from datetime import date
from uuid import UUID

from app.models import Limits
from app.services.credits.need import Need, Taken
from app.services.credits.purse import Purse

LIMITS = Limits(
    user_id=UUID(int=1),
    plan="free",
    daily_conversations=10,
    monthly_credits=100,
    requests_per_minute=None,
    tokens_per_minute=None,
    storage_bytes=None,
    file_bytes=None,
    project_tokens=None,
    models=None,
)
TODAY, TOMORROW = date(2026, 11, 30), date(2026, 12, 1)


def taken(day: date) -> Taken:
    return Taken(got=Need(credits=5, conversations=3), left=Need(), day=day)


def test_conversations_leased_before_midnight_are_not_the_next_day_s() -> None:
    """TRUST M3: the lease was asked for on one day, and got on the next."""
    purse = Purse(limits=LIMITS, used_at=0, settled_at=0)
    purse.begin_day(TODAY)
    purse.begin_day(TOMORROW)

    purse.fill(taken(TODAY))
    late = (purse.free, purse.conversations)
    purse.fill(taken(TOMORROW))

    assert late == (5, 0)
    assert (purse.free, purse.conversations) == (10, 3)
