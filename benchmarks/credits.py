"""What paying costs: reserving and settling, in memory and with all that is written.

First what a call of the gateway pays on its own path, by a key with limits, and what
its log costs there; then calls of many users, with all that is written.

    python -m benchmarks.credits [--calls 50000] [--users 100]

On SQLite in a new folder, or on DATABASE_URL, whose schema must be up to date. Figures
are CPU time of this process and wall time, for each call.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from uuid import UUID

from sqlalchemy import func, select
from uuid_utils.compat import uuid7

from app.core import migrations
from app.core.bus import LocalBus
from app.core.config import LiveSettings, Settings, load_settings
from app.core.crypto import Crypto
from app.core.database import Database
from app.core.ratelimit import LocalLimiter
from app.integrations.llm.base import ModelInfo, Prices, Usage
from app.models import ApiKey, CreditEntry, KeyLimits, User
from app.services.chat.books import Account, Books
from app.services.credits.leasing import Credits
from app.services.credits.purse import Call
from app.services.message_log.writer import MessageLogs
from app.services.plan import Plans

CALL = Call("gateway", "openai/some")
USAGE = Usage(1000, 200)
PRICES = Prices(Decimal(3), Decimal(15), Decimal("0.3"), Decimal("3.75"))
MODEL = ModelInfo(CALL.model, 128_000, 4096, frozenset(), PRICES)
MESSAGES = (
    {"role": "user", "content": [{"type": "text", "text": "So it is. " * 20}]},
    {"role": "assistant", "content": [{"type": "text", "text": "And so on. " * 160}]},
)
PACE = {"requests_per_minute": 10**9, "tokens_per_minute": 10**12}
BURST = 100  # calls between two turns of the event loop


async def spend(credits_: Credits, users: list[UUID], calls: int) -> None:
    for number in range(calls):
        user = users[number % len(users)]
        reservation = await credits_.reserve(user, 30, CALL, conversation=True)
        credits_.settle(reservation, 10, USAGE)
        if number % BURST == 0:
            await asyncio.sleep(0)  # as a server gives its other work a turn


async def reserve(books: Books, key: KeyLimits, user: UUID) -> Account:
    return await books.reserve(
        user, MODEL, kind="gateway", input_tokens=1000, output_tokens=4096, key=key
    )


async def settle(books: Books, key: KeyLimits, user: UUID) -> None:
    (await reserve(books, key, user)).settle(USAGE)


async def cancel(books: Books, key: KeyLimits, user: UUID) -> None:
    (await reserve(books, key, user)).cancel()


async def log(books: Books, key: KeyLimits, user: UUID) -> None:
    account = await reserve(books, key, user)
    await account.log(
        status="complete",
        used=USAGE,
        paid=account.settle(USAGE),
        seconds=1.2,
        messages=lambda: MESSAGES,
        size=2000,
    )


Step = Callable[[Books, KeyLimits, UUID], Awaitable[None]]


async def on_the_path(
    step: Step, books: Books, key: KeyLimits, user: UUID, calls: int
) -> float:
    """CPU microseconds of a call, without what is written meanwhile."""
    cpu = 0.0
    for _ in range(calls // BURST):
        begun = time.thread_time()
        for _ in range(BURST):
            await step(books, key, user)
        cpu += time.thread_time() - begun
        await asyncio.sleep(0)
    return cpu / calls * 1e6


async def measure_path(database: Database, settings: Settings, calls: int) -> None:
    """By a key with every limit there is, of a user who has some, too."""
    bus = LocalBus()
    plans = Plans(database, bus)
    credits_ = Credits(database, bus=bus, limiter=LocalLimiter(), plans=plans)
    crypto = Crypto(settings.security)
    logs = MessageLogs(LiveSettings(settings), database=database, crypto=crypto)
    await plans.open()
    await credits_.open(alone=True)
    await logs.open()
    (user,) = await make_users(database, 1, "team", **PACE, monthly_credits=10**15)
    key = await make_key(database, user)
    books = Books(credits_, logs)
    found: list[float] = []
    # Fewer logs than calls: so many as wait for the writer at a time, not all of them.
    for step, count in ((settle, calls), (cancel, calls), (log, calls // 5)):
        await on_the_path(step, books, key, user, 10 * BURST)
        found.append(await on_the_path(step, books, key, user, count))
    await credits_.close()
    await logs.close()
    settled, cancelled, logged = found
    print(
        f"  one call: reserve and settle {settled:.1f} us of CPU, reserve and cancel "
        f"{cancelled:.1f} us; its log {logged - settled:.1f} us more"
    )


async def make_key(database: Database, user: UUID) -> KeyLimits:
    key = ApiKey(
        id=uuid7(),
        user_id=user,
        name="a benchmark's",
        prefix=f"wr_{user.hex[-12:]}",
        key_hash=user.bytes * 2,
        scopes=[],
        allowed_ips=[],
        models=["guide/*", "openai/*"],
        daily_credit_limit=10**15,
        **PACE,
    )
    async with database.unit_of_work() as session:
        session.add(key)
    return key.limits


async def make_users(
    database: Database, count: int, plan: str, **limits: int
) -> list[UUID]:
    ids = [uuid7() for _ in range(count)]
    none = dict.fromkeys(PACE, None)
    async with database.unit_of_work() as session:
        session.add_all(
            User(
                id=i,
                email=f"{i}@example.com",
                password_hash="",
                plan=plan,
                limits=none | {"daily_conversations": 10**9} | limits,
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
        # No call waits for the database: that would be measured instead of the path.
        variables["MESSAGE_LOG_BUFFER_BYTES"] = str(2**30)
        if url := os.environ.get("DATABASE_URL"):
            variables["DATABASE_URL"] = url
        settings = load_settings(variables, Path(folder))
        if not url:
            await asyncio.to_thread(migrations.upgrade, settings)
        database = Database(settings)
        await measure_path(database, settings, options.calls)
        for plan in ("team", "enterprise"):
            await measure(database, options.calls, options.users, plan)
        await database.close()


if __name__ == "__main__":
    asyncio.run(main())
