"""Money (TRUST M1, M2): leases in memory, the ledger in the database."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select

from app.core.database import Database
from app.core.exceptions import (
    ConflictError,
    ForbiddenError,
    RateLimitedError,
    UnavailableError,
)
from app.integrations.llm.base import Usage
from app.models import CreditLease, UsageDay, User
from app.services.credits import purses
from app.services.credits.afterwards import charge
from app.services.credits.batches import Batch
from app.services.credits.purse import Call, InsufficientCreditsError
from tests.integration.house import CHAT, NOTHING, USAGE, House, try_all


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    house = House(database)
    yield house
    await house.close()


@pytest.mark.parametrize("k", [0, 1, 7, 40])
async def test_of_200_parallel_calls_exactly_the_affordable_are_admitted(
    house: House, k: int
) -> None:
    """TRUST M1, in one process."""
    user = await house.user(monthly_credits=k * 1000 + 999)
    process = await house.process()

    got, refused = await try_all([process], user, 1000, 200)
    for reservation in got:
        process.settle(reservation, 1000, USAGE)
    await process.close()
    house.processes.clear()

    assert len(got) == k
    assert {type(error) for error in refused} == {InsufficientCreditsError}
    assert (await house.assert_sound(user)).balance == 999
    assert (await house.account(user)).leased == 0


async def test_nobody_waits_for_a_lease_that_has_ended(house: House) -> None:
    """TRUST M1. Between its end and the word of it, others run: they must not spin."""
    user = await house.user(monthly_credits=1000)
    process = await house.process()
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended.set_result(None)
    purse = process._purses.of(await process._plans.of(user))
    purse.filling = ended  # type: ignore[assignment]  # a task that is done looks so

    got, _ = await try_all([process], user, 1000, 1)

    assert len(got) == 1


async def test_of_many_who_wait_for_a_write_one_writes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write for each, one after the other, would keep them from coming to an end."""
    user = await house.user(monthly_credits=100 * 1000)
    process = await house.process()
    writes: list[object] = []
    write = process._write

    async def counted(batch: Batch) -> None:
        writes.append(batch)
        await write(batch)

    monkeypatch.setattr(process, "_write", counted)

    got, _ = await try_all([process], user, 1000, 100)

    assert len(got) == 100
    assert len(writes) <= 3


async def test_several_processes_never_admit_more_than_is_affordable(
    house: House,
) -> None:
    """TRUST M1, over several processes; what one has to spare, another gets."""
    user = await house.user(monthly_credits=40 * 1000)
    processes = [await house.process() for _ in range(4)]

    got, _ = await try_all(processes, user, 1000, 200)
    more, refused = await try_all(processes, user, 1000, 200)

    assert len(got) + len(more) <= 40
    assert refused
    await house.assert_sound(user)


async def test_a_process_gets_what_another_holds_and_does_not_need(
    house: House,
) -> None:
    user = await house.user(monthly_credits=1000)
    one, other = await house.process(), await house.process()
    reservation = await one.reserve(user, 900, CHAT)
    one.settle(reservation, 100, USAGE)  # it still holds some 800

    got = await other.reserve(user, 850, CHAT)

    assert got.amount == 850
    await house.assert_sound(user)


async def test_a_call_pays_what_it_cost_and_gets_the_rest_back(house: House) -> None:
    """TRUST M2: an explicit zero stays zero."""
    user = await house.user(monthly_credits=1000)
    process = await house.process()

    paid = []
    for actual in (300, 0):
        reservation = await process.reserve(user, 600, CHAT)
        paid.append(process.settle(reservation, actual, USAGE))
        assert process.settle(reservation, actual, USAGE) == 0  # once
        process.cancel(reservation)
    left = await process.reserve(user, 700, CHAT)
    process.cancel(left)
    await house.end(process)

    assert paid == [300, 0]
    assert await house.ledger(user) == [("grant", 1000), ("usage", -300)]
    account = await house.assert_sound(user)
    assert (account.balance, account.leased) == (700, 0)


async def test_what_is_billed_beyond_a_reservation_is_the_installation_s(
    house: House,
) -> None:
    """TRUST M1."""
    user = await house.user(monthly_credits=1000)
    process = await house.process()
    reservation = await process.reserve(user, 600, CHAT)

    paid = process.settle(reservation, 5000, USAGE)
    await house.end(process)

    assert paid == 600
    assert (await house.assert_sound(user)).balance == 400
    day = await house.scalar(select(UsageDay))
    assert (day.credits, day.absorbed, day.requests) == (600, 4400, 1)


async def test_what_costs_nothing_is_never_refused(house: House) -> None:
    user = await house.user(monthly_credits=0)
    process = await house.process()

    reservation = await process.reserve(user, 0, CHAT)
    assert process.settle(reservation, 0, USAGE) == 0
    with pytest.raises(InsufficientCreditsError):
        await process.reserve(user, 1, CHAT)


async def test_without_a_limit_usage_is_counted_and_nothing_taken(
    house: House,
) -> None:
    user = await house.user()
    process = await house.process()

    got, refused = await try_all([process], user, 10**12, 50, conversation=True)
    paid = [process.settle(reservation, 7, USAGE) for reservation in got]
    await house.end(process)

    assert (len(got), refused, set(paid)) == (50, [], {7})
    assert await house.ledger(user) == []
    day = await house.scalar(select(UsageDay))
    assert (day.requests, day.credits, day.output_tokens) == (50, 350, 1000)


async def test_usage_is_counted_by_day_kind_model_and_key(house: House) -> None:
    """TRUST M2: figures of ours are marked as such."""
    user = await house.user()
    process = await house.process()
    key = user  # any id
    for call in (CHAT, CHAT, Call("gateway", "openai/some", key)):
        estimated = Usage(1, 2, 3, 4, estimated=call is not CHAT)
        process.settle(await process.reserve(user, 5, call), 5, estimated)
        await process.flush()  # each is added to what is there

    async with house.database.unit_of_work(read_only=True) as session:
        rows = (await session.scalars(select(UsageDay).order_by(UsageDay.kind))).all()

    assert [(r.kind, r.requests, r.estimated, r.credits) for r in rows] == [
        ("chat", 2, 0, 10),
        ("gateway", 1, 1, 5),
    ]
    assert rows[1].key_id == key
    assert (rows[0].cache_read_tokens, rows[0].cache_write_tokens) == (6, 8)


async def test_a_killed_process_loses_a_lease_until_it_expires_then_nothing(
    house: House,
) -> None:
    """TRUST M1, F1: no reservation leaks."""
    user = await house.user(monthly_credits=1000)
    killed, other = await house.process(), await house.process()
    killed.settle(await killed.reserve(user, 500, CHAT), 200, USAGE)
    await killed.flush()
    await killed.reserve(user, 400, CHAT)
    await house.kill(killed)

    with pytest.raises(InsufficientCreditsError):
        await other.reserve(user, 700, CHAT)
    await house.assert_sound(user)
    await house.expire(killed)
    await other._reclaim()
    other.tell_changed(user)

    assert (await house.assert_sound(user)).balance == 800
    assert (await other.reserve(user, 800, CHAT)).amount == 800
    assert await house.ledger(user) == [("grant", 1000), ("usage", -200)]


async def test_a_process_that_is_alone_takes_back_at_its_start(house: House) -> None:
    user = await house.user(monthly_credits=1000)
    killed = await house.process()
    await killed.reserve(user, 1000, CHAT)
    await house.kill(killed)

    again = await house.process(alone=True)

    assert (await again.reserve(user, 1000, CHAT)).amount == 1000


async def test_a_process_that_slept_too_long_books_what_it_can_and_goes_on(
    house: House,
) -> None:
    """Others have taken back its leases, and spent them."""
    user = await house.user(monthly_credits=1000)
    slow, other = await house.process(), await house.process()
    noted = await slow.reserve(user, 300, CHAT)
    slow.settle(noted, 300, USAGE)
    await slow.flush()
    open_one = await slow.reserve(user, 500, CHAT)
    await house.expire(slow)
    await other._reclaim()
    greedy = await other.reserve(user, 600, CHAT)

    await slow.flush(renew=True)  # here it finds out
    slow.settle(open_one, 500, USAGE)
    await slow.flush()
    other.settle(greedy, 600, USAGE)
    again = await slow.reserve(user, 0, CHAT)
    slow.settle(again, 0, NOTHING)
    await house.close()

    spent = [amount for kind, amount in await house.ledger(user) if kind == "usage"]
    # Of the 500, what the other had left: it held an eighth of the rest besides.
    assert sorted(spent) == [-600, -300, -88]
    assert (await house.assert_sound(user)).leased == 0


async def test_a_lease_that_ran_out_admits_nobody(house: House) -> None:
    """TRUST M1: whatever its memory says, another may have spent it."""
    user = await house.user(monthly_credits=1000)
    slow, other = await house.process(), await house.process()
    slow.cancel(await slow.reserve(user, 1000, CHAT))
    await house.expire(slow)
    await other._reclaim()
    await other.reserve(user, 900, CHAT)
    slow._purses.holder.renewed -= purses.TRUST_SECONDS

    with pytest.raises(InsufficientCreditsError):
        await slow.reserve(user, 500, CHAT)


async def test_a_batch_whose_answer_was_lost_is_written_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit happened, and the connection broke before it said so."""
    user = await house.user(monthly_credits=1000)
    process = await house.process()
    process.settle(await process.reserve(user, 300, CHAT), 300, USAGE)
    with monkeypatch.context() as patched:
        patched.setattr(process._purses, "written", _lost)
        with pytest.raises(UnavailableError):
            await process.flush()
    await house.end(process)

    assert await house.ledger(user) == [("grant", 1000), ("usage", -300)]
    day = await house.scalar(select(UsageDay))
    assert (day.requests, day.credits) == (1, 300)
    await house.assert_sound(user)


async def test_a_batch_whose_answer_was_lost_is_written_once_after_a_long_sleep(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRUST M1: whoever took the leases back has entered what it notes."""
    user = await house.user(monthly_credits=1000)
    slow, other = await house.process(), await house.process()
    slow.settle(await slow.reserve(user, 10, CHAT), 10, USAGE)
    await slow.flush()
    slow.settle(await slow.reserve(user, 300, CHAT), 300, USAGE)
    with monkeypatch.context() as patched:
        patched.setattr(slow._purses, "written", _lost)
        with pytest.raises(UnavailableError):
            await slow.flush()
    await house.expire(slow)
    await other._reclaim()

    await slow.flush()
    slow.settle(await slow.reserve(user, 5, CHAT), 5, USAGE)
    await house.close()

    spent = [amount for kind, amount in await house.ledger(user) if kind == "usage"]
    assert sorted(spent) == [-310, -5]
    day = await house.scalar(select(UsageDay))
    assert (day.requests, day.credits) == (3, 315)
    assert (await house.assert_sound(user)).leased == 0


def _lost(*_: Any) -> None:
    raise UnavailableError("lost")


async def test_a_call_after_the_fact_takes_what_is_there(house: House) -> None:
    """TRUST M2: what a dead process has left is billed, too."""
    user = await house.user(monthly_credits=1000)
    process = await house.process()
    held = await process.reserve(user, 700, CHAT)
    async with house.database.unit_of_work() as session:
        paid = await charge(session, user, 5000, USAGE, CHAT)
    process.settle(held, 700, USAGE)
    await house.end(process)

    day = await house.scalar(select(UsageDay))
    assert (await house.assert_sound(user)).balance == 1000 - 700 - paid
    assert (day.credits, day.absorbed) == (700 + paid, 5000 - paid)


async def test_an_erased_user_s_calls_end_without_harm(house: House) -> None:
    user, other = await house.user(monthly_credits=1000), await house.user()
    process = await house.process()
    process.settle(await process.reserve(user, 500, CHAT), 500, USAGE)
    async with house.database.unit_of_work() as session:
        await session.delete(await session.get_one(User, user))
    process.settle(await process.reserve(other, 5, CHAT), 5, USAGE)
    await house.end(process)

    assert await house.scalar(select(CreditLease)) is None
    assert await house.scalar(select(UsageDay).where(UsageDay.user_id == other))


async def test_a_model_that_the_plan_leaves_out_is_refused(house: House) -> None:
    user = await house.user(models=["openai/*", "guide/manual"])
    process = await house.process()

    await process.reserve(user, 1, CHAT)
    await process.reserve(user, 1, Call("chat", "guide/manual"))
    with pytest.raises(ForbiddenError, match="bedrock/dear") as refused:
        await process.reserve(user, 1, Call("chat", "bedrock/dear"))
    assert refused.value.code == "model_not_allowed"


async def test_requests_and_tokens_of_a_minute_are_limited(house: House) -> None:
    many = await house.user(requests_per_minute=2)
    long = await house.user(tokens_per_minute=25)
    process = await house.process()

    got, refused = await try_all([process], many, 1, 5)
    assert (len(got), {type(e) for e in refused}) == (2, {RateLimitedError})
    for _ in range(2):  # 30 tokens each: the first is below, the second not any more
        reservation = await process.reserve(long, 1, CHAT)
        process.settle(reservation, 1, Usage(5, 10))
    with pytest.raises(RateLimitedError, match="25 tokens") as error:
        await process.reserve(long, 1, CHAT)
    assert int(error.value.headers["Retry-After"]) >= 1


async def test_an_adjustment_is_felt_at_once_and_cannot_take_what_is_in_use(
    house: House,
) -> None:
    user = await house.user(monthly_credits=100)
    process = await house.process()
    with pytest.raises(InsufficientCreditsError):
        await process.reserve(user, 1000, CHAT)

    await house.adjust(user, 2000)
    reservation = await process.reserve(user, 1000, CHAT)
    with pytest.raises(ConflictError, match="credits are free"):
        await house.adjust(user, -2000)

    process.settle(reservation, 0, NOTHING)
    assert await house.ledger(user) == [("grant", 100), ("adjustment", 2000)]
    await house.assert_sound(user)


async def test_a_larger_limit_fills_the_balance_up_at_once(house: House) -> None:
    user = await house.user(monthly_credits=100)
    process = await house.process()
    process.settle(await process.reserve(user, 100, CHAT), 100, USAGE)
    with pytest.raises(InsufficientCreditsError):
        await process.reserve(user, 500, CHAT)

    await house.limit(user, monthly_credits=600)

    assert (await process.reserve(user, 500, CHAT)).amount == 500
    await house.assert_sound(user)
