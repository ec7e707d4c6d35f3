"""Limits of a day and of a month (TRUST M3), and the mails that warn of them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from app.core.database import Database, utcnow
from app.models import Job
from app.services import usage
from app.services.audit import SYSTEM
from app.services.credits import changes
from app.services.credits.afterwards import charge
from app.services.credits.purse import DailyLimitError
from tests.integration.house import CHAT, USAGE, House, try_all

EVENING = datetime(2026, 11, 30, 23, 59, 50, tzinfo=UTC)
"""The last of a day, and of a month."""
MORNING = EVENING + timedelta(seconds=20)


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    house = House(database)
    yield house
    await house.close()


async def mails(house: House) -> list[tuple[str, str]]:
    async with house.database.unit_of_work(read_only=True) as session:
        jobs = await session.scalars(select(Job).order_by(Job.id))
        return [
            (job.args["template"], job.args["values"]["what"])
            for job in jobs
            if job.name == "mail.send"
        ]


async def test_exactly_as_many_conversations_as_the_limit(house: House) -> None:
    """TRUST M1, of conversations; what is cancelled does not count."""
    user = await house.user(daily_conversations=7)
    process = await house.process()

    got, refused = await try_all([process], user, 10, 60, conversation=True)
    process.cancel(got[0])
    more, still = await try_all([process], user, 10, 5, conversation=True)
    without, _ = await try_all([process], user, 10, 5)

    assert (len(got), len(more), len(without)) == (7, 1, 5)
    assert {type(error) for error in refused + still} == {DailyLimitError}
    assert refused[0].code == "daily_limit_reached"
    assert 0 < int(refused[0].headers["Retry-After"]) <= 24 * 3600


async def test_never_more_conversations_over_several_processes(house: House) -> None:
    user = await house.user(daily_conversations=30)
    processes = [await house.process() for _ in range(3)]

    got, _ = await try_all(processes, user, 0, 90, conversation=True)
    more, _ = await try_all(processes, user, 0, 90, conversation=True)

    assert len(got) + len(more) <= 30
    # What one has to spare is given to the others, so that none is wasted for long.
    assert len(got) + len(more) >= 27


async def test_the_day_begins_anew_once_whoever_comes_first_and_after_a_restart(
    house: House,
) -> None:
    """TRUST M3."""
    house.now = EVENING
    user = await house.user(daily_conversations=10)
    processes = [await house.process() for _ in range(3)]
    before, _ = await try_all(processes, user, 0, 40, conversation=True)
    before += (await try_all(processes, user, 0, 40, conversation=True))[0]

    house.now = MORNING
    after, _ = await try_all(processes, user, 0, 40, conversation=True)
    for process in tuple(house.processes):
        await house.end(process)
    restarted = [await house.process() for _ in range(3)]
    after += (await try_all(restarted, user, 0, 40, conversation=True))[0]
    after += (await try_all(restarted, user, 0, 40, conversation=True))[0]

    assert 8 <= len(before) <= 10
    assert len(after) == 10


async def test_a_clock_that_is_behind_does_not_bring_yesterday_back(
    house: House,
) -> None:
    """TRUST M3: clocks differ by a little."""
    house.now = MORNING
    user = await house.user(daily_conversations=4, monthly_credits=100)
    first = await house.process()
    got, _ = await try_all([first], user, 1, 3, conversation=True)
    house.now = EVENING
    second = await house.process()
    late, _ = await try_all([second], user, 1, 9, conversation=True)

    assert len(got) + len(late) <= 4
    assert await house.ledger(user) == [("grant", 100)]


async def test_a_month_is_granted_once_and_fills_up(house: House) -> None:
    """TRUST M3: three processes at the same moment, and a restart."""
    house.now = EVENING
    user = await house.user(monthly_credits=1000)
    process = await house.process()
    process.settle(await process.reserve(user, 300, CHAT), 300, USAGE)
    await house.end(process)

    house.now = MORNING
    processes = [await house.process() for _ in range(3)]
    await asyncio.gather(*(p.reserve(user, 100, CHAT) for p in processes))
    for process in tuple(house.processes):
        await house.end(process)
    again = await house.process()
    await again.reserve(user, 1000, CHAT)

    assert await house.ledger(user) == [
        ("grant", 1000),
        ("usage", -300),
        ("grant", 300),
    ]
    await house.assert_sound(user)


async def test_what_was_added_stays_over_the_month_s_end(house: House) -> None:
    house.now = EVENING
    user = await house.user(monthly_credits=1000)
    process = await house.process()
    process.cancel(await process.reserve(user, 1, CHAT))
    await house.adjust(user, 5000)

    house.now = MORNING
    reservation = await process.reserve(user, 6000, CHAT)

    assert reservation.amount == 6000
    assert [kind for kind, _ in await house.ledger(user)] == ["grant", "adjustment"]


async def test_a_desk_gives_today_s_conversations_again(house: House) -> None:
    user = await house.user(daily_conversations=3)
    process = await house.process()
    got, _ = await try_all([process], user, 0, 9, conversation=True)
    for reservation in got:
        process.settle(reservation, 0, USAGE)

    async with house.database.unit_of_work() as session:
        await changes.reset_day(session, process, SYSTEM, user)
    more, _ = await try_all([process], user, 0, 9, conversation=True)

    assert (len(got), len(more)) == (3, 3)


async def test_warnings_come_once_at_80_and_at_100_percent(house: House) -> None:
    user = await house.user(daily_conversations=10, monthly_credits=10_000_000)
    process = await house.process()

    for _ in range(3):
        await try_all([process], user, 1_000_000, 4, conversation=True)
    first = await mails(house)
    await try_all([process], user, 1_000_000, 4, conversation=True)
    await process.flush()

    credits_, messages = (
        "the credits of this month ($10)",
        "the 10 messages of this day",
    )
    assert sorted(await mails(house)) == sorted(first)
    assert {template for template, what in first if what == messages} == {
        "limit_80",
        "limit_100",
    }
    assert ("limit_80", credits_) in first
    assert len(first) == len(set(first))


async def test_a_report_from_outside_warns_too(house: House) -> None:
    user = await house.user(monthly_credits=10_000_000)
    for amount in (7_000_000, 1_500_000, 500_000, 5_000_000):
        async with house.database.unit_of_work() as session:
            await charge(session, user, amount, USAGE, CHAT)

    what = "the credits of this month ($10)"
    assert await mails(house) == [("limit_80", what), ("limit_100", what)]
    await house.assert_sound(user)


async def test_what_a_process_holds_of_yesterday_is_not_left_today(
    house: House,
) -> None:
    house.now = utcnow() - timedelta(days=1)
    user = await house.user(daily_conversations=80)
    idle, busy = await house.process(), await house.process()
    await idle.reserve(user, 0, CHAT, conversation=True)
    house.now = utcnow()
    await busy.reserve(user, 0, CHAT, conversation=True)
    await busy.flush()

    async with house.database.unit_of_work(read_only=True) as session:
        seen = (await usage.limits(session, user)).conversations

    assert (seen.used, seen.remaining) == (1, 79)
