"""What paying costs: reserving and settling, in memory and with all that is written.

    python -m benchmarks.credits [--calls 50000] [--users 100]

On SQLite in a new folder, or on DATABASE_URL, whose schema must be up to date. Figures
are CPU time of this process and wall time, for each call.
"""

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from uuid import UUID

from sqlalchemy import func, select
from uuid_utils.compat import uuid7

from app.core import migrations
from app.core.bus import LocalBus
from app.core.config import load_settings
from app.core.database import Database
from app.core.ratelimit import LocalLimiter
from app.integrations.llm.base import Usage
from app.models import CreditEntry, User
from app.services.credits.leasing import Credits
from app.services.credits.purse import Call
from app.services.plan import Plans

CALL = Call("gateway", "openai/some")
USAGE = Usage(1000, 200)


async def spend(credits_: Credits, users: list[UUID], calls: int) -> None:
    for number in range(calls):
        user = users[number % len(users)]
        reservation = await credits_.reserve(user, 30, CALL, conversation=True)
        credits_.settle(reservation, 10, USAGE)
        if number % 100 == 0:
            await asyncio.sleep(0)  # as a server gives its other work a turn


async def make_users(database: Database, count: int, plan: str) -> list[UUID]:
    ids = [uuid7() for _ in range(count)]
    none = {"requests_per_minute": None, "tokens_per_minute": None}
    async with database.unit_of_work() as session:
        session.add_all(
            User(
                id=i,
                email=f"{i}@example.com",
                password_hash="",
                plan=plan,
                limits=none | {"daily_conversations": 10**9},
            )
            for i in ids
        )
    return ids


async def measure(database: Database, calls: int, users: int, plan: str) -> None:
    bus = LocalBus()
    plans = Plans(database, bus)
    credits_ = Credits(database, bus=bus, limiter=LocalLimiter(), plans=plans)
    await plans.open()
    await credits_.open(alone=True)
    ids = await make_users(database, users, plan)
    await spend(credits_, ids, users)  # each has a lease now
    cpu, wall = time.process_time(), time.perf_counter()
    await spend(credits_, ids, calls)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    flushed = time.perf_counter()
    await credits_.flush()
    flushed = time.perf_counter() - flushed
    await credits_.close()
    async with database.unit_of_work(read_only=True) as session:
        entries = await session.scalar(
            select(func.count()).where(CreditEntry.user_id.in_(ids))
        )
    print(
        f"{plan:>10}: {calls / wall:,.0f} calls/s, {cpu / calls * 1e6:.1f} us of CPU "
        f"a call; writing {users} users {flushed * 1e3:.1f} ms; {entries} entries"
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=50_000)
    parser.add_argument("--users", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        variables = {"SECRET_KEY": "of a benchmark", "DATA_DIR": folder}
        if url := os.environ.get("DATABASE_URL"):
            variables["DATABASE_URL"] = url
        settings = load_settings(variables, Path(folder))
        if not url:
            await asyncio.to_thread(migrations.upgrade, settings)
        database = Database(settings)
        for plan in ("team", "enterprise"):
            await measure(database, options.calls, options.users, plan)
        await database.close()


if __name__ == "__main__":
    asyncio.run(main())
