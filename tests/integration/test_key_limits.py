"""What one API key may use (TRUST K2), whoever spends at once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from app.core.database import Database
from app.core.exceptions import AppError, ForbiddenError, RateLimitedError
from app.integrations.llm.base import Usage
from app.models import KeyLimits
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


def limited(**limits: Any) -> KeyLimits:
    return KeyLimits(id=uuid7(), **limits)


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
    key, other = limited(daily_credit_limit=1050), limited(daily_credit_limit=100)
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
    key = limited(daily_credit_limit=250)
    here.settle(await reserve(here, user, key, 200), 200, USAGE)
    await here.flush()

    with pytest.raises(KeyLimitError):
        await reserve(there, user, key)
    free = await reserve(there, user, key, 0)
    house.now = EVENING + timedelta(seconds=20)
    next_day = await reserve(there, user, key, 250)

    assert (free.amount, next_day.call.key_id) == (0, key.id)


async def test_each_process_holds_a_limit_at_most_once(house: House) -> None:
    """TRUST K2: so far it can be passed, and no call further."""
    user = await house.user(monthly_credits=1_000_000)
    processes = [await house.process(), await house.process()]
    key = limited(daily_credit_limit=250)
    held = [await reserve(process, user, key, 250) for process in processes]
    for process in processes:
        with pytest.raises(KeyLimitError):
            await reserve(process, user, key, 1)

    for process, reservation in zip(processes, held, strict=True):
        process.settle(reservation, 250, USAGE)
        await process.flush()

    for process in processes:
        with pytest.raises(KeyLimitError):
            await reserve(process, user, key, 1)
    await house.assert_sound(user)


async def test_a_call_that_the_user_cannot_pay_holds_nothing_of_the_key(
    house: House,
) -> None:
    user = await house.user(monthly_credits=100)
    process = await house.process()
    key = limited(daily_credit_limit=1000)

    for _ in range(3):
        with pytest.raises(InsufficientCreditsError):
            await reserve(process, user, key, 900)
    await house.adjust(user, 2000)

    assert (await reserve(process, user, key, 1000)).amount == 1000


async def test_models_requests_and_tokens_of_a_key(house: House) -> None:
    """TRUST K2: each key has its own, besides what the user may."""
    user = await house.user()
    process = await house.process()
    quick = limited(requests_per_minute=2)
    talkative = limited(tokens_per_minute=100)
    narrow = limited(models=("guide/*", "openai/other"))

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
    await reserve(process, user, limited())
