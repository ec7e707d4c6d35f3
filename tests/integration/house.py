"""A database, and the processes that spend on it, as tests of money see them."""

import asyncio
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from uuid_utils.compat import uuid7

from app.core.bus import LocalBus
from app.core.database import Database, utcnow
from app.core.exceptions import AppError
from app.core.ratelimit import Limiter, LocalLimiter
from app.integrations.llm.base import Usage
from app.models import (
    ApiKey,
    CreditAccount,
    CreditEntry,
    CreditHolder,
    CreditLease,
    KeyLease,
    KeyLimits,
    UsageDay,
    User,
)
from app.schemas.credits import CreditAdjustment
from app.schemas.plan import LimitsUpdate
from app.services.audit import SYSTEM
from app.services.credits import changes
from app.services.credits.leasing import Credits
from app.services.credits.purse import Call, Reservation
from app.services.plan import Plans

CHAT = Call("chat", "openai/some")
USAGE = Usage(10, 20)
NOTHING = Usage(0, 0)


class SharedBus(LocalBus):
    """A bus that several `Credits` share, as processes share Redis."""

    shared = True


class House:
    """A database, and the processes that spend on it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.bus = SharedBus()
        self.limiter: Limiter = LocalLimiter()
        self.now: datetime | None = None
        self.processes: list[Credits] = []

    async def process(self, *, alone: bool = False) -> Credits:
        plans = Plans(self.database, self.bus)
        await plans.open()
        credits_ = Credits(
            self.database,
            bus=self.bus,
            limiter=self.limiter,
            plans=plans,
            now=lambda: self.now or utcnow(),
        )
        await credits_.open(alone=alone)
        self.processes.append(credits_)
        return credits_

    async def kill(self, process: Credits) -> None:
        """As `kill -9` does: nothing is written any more, nothing given back."""
        self.processes.remove(process)
        assert process._writer is not None
        process._writer.cancel()
        await asyncio.gather(process._writer, return_exceptions=True)
        await process._purses.close()

    async def end(self, process: Credits) -> None:
        """As on SIGTERM."""
        self.processes.remove(process)
        await process.close()

    async def close(self) -> None:
        for process in tuple(self.processes):
            await self.end(process)

    async def user(self, **limits: Any) -> UUID:
        """A user with limits of their own."""
        user_id = uuid7()
        none: dict[str, Any] = dict.fromkeys(LimitsUpdate.model_fields)
        async with self.database.unit_of_work() as session:
            session.add(
                User(
                    id=user_id,
                    email=f"{user_id}@example.com",
                    password_hash="x",
                    limits=none | limits,
                )
            )
        return user_id

    async def key(self, user_id: UUID, **limits: Any) -> KeyLimits:
        """An API key of a user, with limits of its own."""
        key = ApiKey(
            id=uuid7(),
            user_id=user_id,
            name="a test's",
            prefix=f"wr_{user_id.hex[:4]}{uuid7().hex[-8:]}",
            key_hash=uuid7().bytes * 2,
            scopes=[],
            allowed_ips=[],
            **limits,
        )
        async with self.database.unit_of_work() as session:
            session.add(key)
        return KeyLimits(id=key.id, **limits)

    async def limit(self, user_id: UUID, **limits: Any) -> None:
        """Change a user's limits as an admin does."""
        form = LimitsUpdate(**limits)
        async with self.database.unit_of_work() as session:
            await self.processes[0]._plans.override(session, SYSTEM, user_id, form)

    async def adjust(self, user_id: UUID, amount: int) -> None:
        form = CreditAdjustment(amount=amount, note="A test.")
        async with self.database.unit_of_work() as session:
            await changes.adjust(session, self.processes[0], SYSTEM, user_id, form)

    async def scalar(self, statement: Any) -> Any:
        async with self.database.unit_of_work(read_only=True) as session:
            return await session.scalar(statement)

    async def account(self, user_id: UUID) -> CreditAccount:
        account = await self.scalar(
            select(CreditAccount).where(CreditAccount.id == user_id)
        )
        assert isinstance(account, CreditAccount)
        return account

    async def ledger(self, user_id: UUID) -> list[tuple[str, int]]:
        async with self.database.unit_of_work(read_only=True) as session:
            found = await session.execute(
                select(CreditEntry.kind, CreditEntry.amount)
                .where(CreditEntry.user_id == user_id)
                .order_by(CreditEntry.id)
            )
            return [(kind, amount) for kind, amount in found]

    async def expire(self, process: Credits | None = None) -> None:
        """Let time run out for a process, or for all."""
        expired = update(CreditHolder).values(
            expires_at=utcnow() - timedelta(seconds=1)
        )
        if process is not None:
            expired = expired.where(CreditHolder.id == process._purses.holder.id)
        async with self.database.unit_of_work() as session:
            await session.execute(expired)

    async def assert_sound(self, user_id: UUID) -> CreditAccount:
        """M1: the balance is the ledger's sum, and never negative.

        What is leased is what there are leases of, and what processes believe to have.
        """
        async with self.database.unit_of_work(read_only=True) as session:
            account = await session.get_one(CreditAccount, user_id)
            total = await session.scalar(
                select(func.coalesce(func.sum(CreditEntry.amount), 0)).where(
                    CreditEntry.user_id == user_id
                )
            )
            found = await session.execute(
                select(CreditLease.holder_id, CreditLease.credits).where(
                    CreditLease.user_id == user_id
                )
            )
            leases = {row.holder_id: row.credits for row in found}
        assert 0 <= account.balance == total
        assert account.leased == sum(leases.values()) <= account.balance
        for process in self.processes:
            purse = process._purses.users.get(user_id)
            if (
                purse is not None
                and purse.leased
                and process._purses.holder.id in leases
            ):
                held = purse.free + purse.reserved + purse.spent
                assert held == leases[process._purses.holder.id]
                assert min(purse.free, purse.reserved, purse.spent) >= 0
        return account

    async def promised(self, key: KeyLimits, day: date) -> int:
        """What was spent by a key on a day, and what processes may still spend.

        Each has leased what it believes to have.
        """
        of_day = (KeyLease.key_id == key.id, KeyLease.day == day)
        async with self.database.unit_of_work(read_only=True) as session:
            spent = await session.scalar(
                select(func.coalesce(func.sum(UsageDay.credits), 0)).where(
                    UsageDay.key_id == key.id, UsageDay.day == day
                )
            )
            found = await session.execute(
                select(KeyLease.holder_id, KeyLease.credits).where(*of_day)
            )
            leases: dict[UUID, int] = {row.holder_id: row.credits for row in found}
        for process in self.processes:
            use = process._purses.keys.get(key.id)
            budget = use.budgets.get(day) if use is not None else None
            if budget is not None:
                assert min(budget.free, budget.reserved, budget.spent) >= 0
                held = budget.free + budget.reserved + budget.spent
                assert held <= leases.get(process._purses.holder.id, 0)
        return int(spent or 0) + sum(leases.values())


async def try_all(
    processes: list[Credits], user_id: UUID, amount: int, count: int, **options: Any
) -> tuple[list[Reservation], list[AppError]]:
    """Ask for `count` reservations at once, the processes in turn."""
    asked = [
        processes[n % len(processes)].reserve(user_id, amount, CHAT, **options)
        for n in range(count)
    ]
    got, refused = [], []
    for result in await asyncio.gather(*asked, return_exceptions=True):
        if isinstance(result, Reservation):
            got.append(result)
        else:
            assert isinstance(result, AppError), result
            refused.append(result)
    return got, refused
