"""A database, and the processes that spend on it, as tests of money see them."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from uuid_utils.compat import uuid7

from app.core.bus import LocalBus
from app.core.database import Database, utcnow
from app.core.exceptions import AppError
from app.core.ratelimit import LocalLimiter
from app.integrations.llm.base import Usage
from app.models import (
    CreditAccount,
    CreditEntry,
    CreditHolder,
    CreditLease,
    User,
)
from app.schemas.credits import CreditAdjustment
from app.schemas.plan import LimitsUpdate
from app.services.audit import SYSTEM
from app.services.credits import changes, leasing
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
        self.limiter = LocalLimiter()
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
        await self.bus.unlisten(leasing._RECALL, process._recalled)
        await self.bus.unlisten(leasing._CHANGED, process._has_changed)

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
            expired = expired.where(CreditHolder.id == process._holder_id)
        async with self.database.unit_of_work() as session:
            await session.execute(expired)

    async def assert_sound(self, user_id: UUID) -> CreditAccount:
        """M1: the balance is the ledger's sum, and never negative."""
        account = await self.account(user_id)
        total = await self.scalar(
            select(func.coalesce(func.sum(CreditEntry.amount), 0)).where(
                CreditEntry.user_id == user_id
            )
        )
        leased = await self.scalar(
            select(func.coalesce(func.sum(CreditLease.credits), 0)).where(
                CreditLease.user_id == user_id
            )
        )
        assert account.balance == total >= 0
        assert account.leased == leased
        return account


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
