"""What one API key may use (TRUST K2), whoever spends at once."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.core.config import RedisSettings
from app.core.database import Database, utcnow
from app.core.exceptions import AppError, ForbiddenError, RateLimitedError
from app.core.ratelimit import connect
from app.integrations.llm.base import Usage
from app.models import KeyLimits, UsageDay
from app.services.credits.keys import KeyLimitError
from app.services.credits.leasing import Credits
from app.services.credits.purse import (
    Call,
    InsufficientCreditsError,
    Reservation,
)
from tests.integration.house import USAGE, House

EVENING = datetime(2026, 11, 30, 23, 59, 50, tzinfo=UTC)


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    house = House(database)
    yield house
    await house.close()


async def reserve(
    process: Credits, user: UUID, key: KeyLimits, amount: int = 100
) -> Reservation:
    call = Call("chat", "openai/some", key.id)
    return await process.reserve(user, amount, call, key=key)


async def test_of_many_calls_at_once_exactly_the_affordable_are_admitted(
    house: House,
) -> None:
    """TRUST K2, M1: and what they did not need is there for others."""
    user = await house.user(monthly_credits=1_000_000)
    process = await house.process()
    key, other = (
        await house.key(user, daily_credit_limit=1050),
        await house.key(user, daily_credit_limit=100),
    )
    results = await asyncio.gather(
        *(reserve(process, user, key) for _ in range(40)), return_exceptions=True
    )
    got = [one for one in results if isinstance(one, Reservation)]
    refused = [one for one in results if isinstance(one, AppError)]

    await reserve(process, user, other)
    process.cancel(got[0])
    for reservation in got[1:]:
        process.settle(reservation, 10, USAGE)
    before = await _admitted(process, user, key)
    await process.flush()
    after = await _admitted(process, user, key)

    assert len(got) == 10
    assert {type(error) for error in refused} == {KeyLimitError}
    assert 0 < int(refused[0].headers["Retry-After"]) <= 24 * 3600
    # 9 calls took 10 each, whether that is written already or not.
    assert before == after == (1050 - 90) // 100
    await house.assert_sound(user)


async def _admitted(process: Credits, user: UUID, key: KeyLimits) -> int:
    """How many calls more there could be; they are not made."""
    got = []
    while True:
        try:
            got.append(await reserve(process, user, key))
        except KeyLimitError:
            break
    for reservation in got:
        process.cancel(reservation)
    return len(got)


async def test_what_another_process_has_written_counts_and_a_day_begins_anew(
    house: House,
) -> None:
    """TRUST K2, M3."""
    house.now = EVENING
    user = await house.user()  # whose own credits have no limit
    here, there = await house.process(), await house.process()
    key = await house.key(user, daily_credit_limit=250)
    here.settle(await reserve(here, user, key, 200), 200, USAGE)
    await here.flush()

    with pytest.raises(KeyLimitError):
        await reserve(there, user, key)
    free = await reserve(there, user, key, 0)
    house.now = EVENING + timedelta(seconds=20)
    next_day = await reserve(there, user, key, 250)

    assert (free.amount, next_day.call.key_id) == (0, key.id)


async def test_processes_that_spend_at_once_never_pass_a_limit(house: House) -> None:
    """TRUST K2, M1: over several processes, and whatever the user has."""
    user = await house.user()
    processes = [await house.process() for _ in range(3)]
    key = await house.key(user, daily_credit_limit=2050)

    async def many() -> list[tuple[Credits, Reservation]]:
        asked = [(process, reserve(process, user, key)) for process in processes * 20]
        found = await asyncio.gather(*(one for _, one in asked), return_exceptions=True)
        refused = [one for one in found if isinstance(one, BaseException)]
        assert {type(error) for error in refused} <= {KeyLimitError}
        pairs = zip(processes * 20, found, strict=True)
        return [(p, one) for p, one in pairs if isinstance(one, Reservation)]

    got = await many() + await many()
    paid = [process.settle(one, 10**6, USAGE) for process, one in got]
    for process in processes:
        await process.flush()

    assert 0 < len(got) <= 20
    assert set(paid) == {100}  # what it billed beyond that, the installation bears
    assert await house.promised(key, utcnow().date()) <= 2050


async def test_a_process_gets_what_another_holds_of_a_budget_and_does_not_need(
    house: House,
) -> None:
    user = await house.user()
    one, other = await house.process(), await house.process()
    key = await house.key(user, daily_credit_limit=1000)
    one.settle(await reserve(one, user, key, 900), 100, USAGE)  # it holds some 800

    got = await reserve(other, user, key, 850)

    assert got.most == 850
    with pytest.raises(KeyLimitError):
        await reserve(one, user, key, 100)
    assert await house.promised(key, utcnow().date()) <= 1000


async def test_a_budget_that_a_dead_process_held_comes_back(house: House) -> None:
    """TRUST K2, F1."""
    user = await house.user()
    killed, other = await house.process(), await house.process()
    key = await house.key(user, daily_credit_limit=1000)
    killed.settle(await reserve(killed, user, key, 500), 200, USAGE)
    await killed.flush()
    await reserve(killed, user, key, 700)
    await house.kill(killed)

    with pytest.raises(KeyLimitError):
        await reserve(other, user, key, 800)
    await house.expire(killed)
    await other._reclaim()
    other.tell_changed(key.id)

    await reserve(other, user, key, 800)
    with pytest.raises(KeyLimitError):
        await reserve(other, user, key, 1)


async def test_a_lowered_limit_holds_for_what_a_process_has_leased_already(
    house: House,
) -> None:
    user = await house.user()
    process = await house.process()
    key = await house.key(user, daily_credit_limit=1000)
    running = await reserve(process, user, key, 900)

    lower, higher = (replace(key, daily_credit_limit=n) for n in (500, 1500))
    with pytest.raises(KeyLimitError):
        await reserve(process, user, lower, 1)
    process.settle(running, 400, USAGE)  # what it gives back is beyond the limit
    process.tell_changed(key.id)
    with pytest.raises(KeyLimitError):
        await reserve(process, user, lower, 101)
    await reserve(process, user, lower, 100)

    await reserve(process, user, higher, 1000)
    with pytest.raises(KeyLimitError):
        await reserve(process, user, higher, 1)


async def test_a_limit_that_is_lowered_while_a_process_asks_holds(
    house: House,
) -> None:
    user = await house.user()
    process = await house.process()
    key = await house.key(user, daily_credit_limit=1000)
    process.settle(await reserve(process, user, key, 1), 1, USAGE)
    await process.flush()
    budget = process._purses.keys[key.id].budgets[utcnow().date()]
    first = asyncio.create_task(reserve(process, user, key, 600))
    while budget.noted >= 0:  # noqa: ASYNC110 - a lease that is asked for tells nobody
        await asyncio.sleep(0)
    asking = budget.filling
    assert asking is not None
    first.cancel()

    lower = replace(key, daily_credit_limit=500)
    with pytest.raises(KeyLimitError):
        await reserve(process, user, lower, 500)  # 1 is spent
    await asking
    await reserve(process, user, lower, 400)


async def test_a_call_counts_on_the_day_that_it_began(house: House) -> None:
    """TRUST K2, M3: what ends after midnight takes nothing of the next day."""
    house.now = EVENING
    user = await house.user()
    process = await house.process()
    key = await house.key(user, daily_credit_limit=100)
    late = await reserve(process, user, key)
    house.now = EVENING + timedelta(seconds=20)
    next_one = await reserve(process, user, key)

    for reservation in (late, next_one):
        process.settle(reservation, 100, USAGE)
    await process.flush()
    await process.flush()

    for day in (EVENING.date(), house.now.date()):
        assert await house.promised(key, day) == 100
    assert list(process._purses.keys[key.id].budgets) == [house.now.date()]


async def test_a_call_by_a_busy_key_waits_for_nothing(house: House) -> None:
    """The second has it all at hand: limits, budget, credits."""
    user = await house.user(monthly_credits=10**9)
    process = await house.process()
    key = await house.key(
        user,
        daily_credit_limit=10**9,
        requests_per_minute=100,
        tokens_per_minute=10**6,
        models=("openai/*",),
    )
    process.settle(await reserve(process, user, key), 10, USAGE)

    for _ in range(50):
        process.settle(at_once(reserve(process, user, key)), 10, USAGE)


def at_once(work: Coroutine[Any, Any, Reservation]) -> Reservation:
    """What it gives, if it never has to be waited for."""
    try:
        work.send(None)
    except StopIteration as done:
        reservation = done.value
        assert isinstance(reservation, Reservation)
        return reservation
    work.close()
    raise AssertionError("It waits for something.")


async def test_what_was_asked_for_must_be_allowed_and_what_answers_is_booked(
    house: House,
) -> None:
    """TRUST K2: a route's name, which stands for other models."""
    user = await house.user(models=["fast", "guide/*"])
    process = await house.process()
    key = await house.key(user, models=("fast", "openai/*"))
    call = Call("gateway", "openai/some", key.id)

    got = await process.reserve(user, 1, call, key=key, asked="fast")
    process.settle(got, 1, USAGE)
    await process.flush()
    for asked, whose in ((None, "plan"), ("guide/x", "API key")):
        with pytest.raises(ForbiddenError, match=whose) as refused:
            await process.reserve(user, 1, call, key=key, asked=asked)
        assert (asked or call.model) in str(refused.value)

    assert await house.scalar(select(UsageDay.model)) == "openai/some"


async def test_a_call_that_the_user_cannot_pay_holds_nothing_of_the_key(
    house: House,
) -> None:
    user = await house.user(monthly_credits=100)
    process = await house.process()
    key = await house.key(user, daily_credit_limit=1000)

    for _ in range(3):
        with pytest.raises(InsufficientCreditsError):
            await reserve(process, user, key, 900)
    await house.adjust(user, 2000)

    assert (await reserve(process, user, key, 1000)).amount == 1000


async def test_tokens_of_a_minute_count_in_all_processes(
    house: House, redis_url: str
) -> None:
    """TRUST K2: what another used is known a second later, without being asked for."""
    house.now = EVENING
    settings = RedisSettings.model_validate({"REDIS_URL": redis_url})
    limiters, processes = [], []
    for _ in range(2):
        house.limiter = connect(settings)
        limiters.append(house.limiter)
        processes.append(await house.process())
    user = await house.user(tokens_per_minute=100)
    key = await house.key(user, tokens_per_minute=90)
    another = await house.key(user)

    async def use(process: Credits, key: KeyLimits, tokens: int) -> None:
        process.settle(await reserve(process, user, key), 1, Usage(tokens, 0))

    async def share() -> None:
        for process in (*processes, *processes):
            await process.share_paces()

    await use(processes[0], key, 90)
    await use(processes[1], key, 4)  # it has heard of nothing yet
    await share()
    for process in processes:
        with pytest.raises(RateLimitedError, match="key allows 90 tokens"):
            await reserve(process, user, key)
        await use(process, another, 3)
    await share()
    for process in processes:
        with pytest.raises(RateLimitedError, match="plan allows 100 tokens"):
            await reserve(process, user, another)

    house.now += timedelta(seconds=90)  # a third of them count still
    for process in processes:
        await use(process, key, 1)
    for limiter in limiters:
        await limiter.close()


async def test_models_requests_and_tokens_of_a_key(house: House) -> None:
    """TRUST K2: each key has its own, besides what the user may."""
    user = await house.user()
    process = await house.process()
    quick = await house.key(user, requests_per_minute=2)
    talkative = await house.key(user, tokens_per_minute=100)
    narrow = await house.key(user, models=("guide/*", "openai/other"))

    for _ in range(2):
        await reserve(process, user, quick)
    process.settle(await reserve(process, user, talkative), 1, Usage(60, 40))

    for key, what in ((quick, "2 requests"), (talkative, "100 tokens")):
        with pytest.raises(RateLimitedError, match=f"key allows {what}") as refused:
            await reserve(process, user, key)
        assert 0 < int(refused.value.headers["Retry-After"]) <= 60
    with pytest.raises(ForbiddenError, match="API key") as left_out:
        await reserve(process, user, narrow)
    assert left_out.value.code == "model_not_allowed"
    await process.reserve(user, 1, Call("chat", "guide/x", narrow.id), key=narrow)
    await reserve(process, user, await house.key(user))
