"""How many message logs a process stores in a second, sealed, and what one costs it.

    python -m benchmarks.message_logs [--rounds 5] [--rows 20000]

Each entry holds a question of 200 characters and an answer of 1,800. The writer runs on
one CPU, PostgreSQL on another. The CPU time of an entry is what logging adds to a turn.
"""

import asyncio
import os
import statistics
import time
from pathlib import Path

from sqlalchemy import func, insert, select
from uuid_utils.compat import uuid7

from app.core import migrations
from app.core.config import load_settings
from app.core.database import Database
from app.models import MessageLog, User
from app.services.message_log.entry import Entry
from app.services.runtime import Runtime
from benchmarks.harness import Report, Workplace, parser

GATE = 5000  # rows a second
_CPUS = sorted(os.sched_getaffinity(0))
WORDS = "So it is with all things that are counted one by one, even these. "
MESSAGES = (
    {"role": "user", "content": [{"type": "text", "text": (WORDS * 4)[:200]}]},
    {"role": "assistant", "content": [{"type": "text", "text": (WORDS * 30)[:1800]}]},
)


async def measure(runtime: Runtime, rows: int) -> tuple[float, float]:
    """Rows a second, and CPU microseconds of this process for a row."""
    user = uuid7()
    async with runtime.database.unit_of_work() as session:
        values = {"id": user, "email": f"{user}@example.org", "password_hash": "-"}
        await session.execute(insert(User), values)
    logs = runtime.message_logs
    await logs.open()
    before = await count(runtime.database)
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(rows):
        entry = Entry(
            user_id=user,
            kind="chat",
            model="openai/some-model",
            status="complete",
            messages=MESSAGES,
            input_tokens=50,
            output_tokens=450,
            credits=number,
            latency_ms=1200,
        )
        await logs.write(entry)
    await logs.close()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    stored = await count(runtime.database) - before
    assert stored == rows, f"{rows - stored} of {rows} rows are missing"
    return rows / wall, cpu / rows * 1e6


async def count(database: Database) -> int:
    async with database.unit_of_work(read_only=True) as session:
        return await session.scalar(select(func.count()).select_from(MessageLog)) or 0


async def rounds(url: str, folder: Path, number: int, rows: int) -> list[list[float]]:
    variables = {"SECRET_KEY": "-" * 32, "DATA_DIR": str(folder), "DATABASE_URL": url}
    found = []
    for _ in range(number):
        runtime = Runtime.build(load_settings(variables, folder))
        found.append(list(await measure(runtime, rows)))
        await runtime.database.close()
    return found


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, default=20_000)
    options = arguments.parse_args()
    report = Report(options)
    with Workplace() as place:
        for kind in ("sqlite", "postgresql"):
            url = place.database(kind)
            os.sched_setaffinity(0, {_CPUS[0]})  # PostgreSQL stays on the other one
            variables = {"SECRET_KEY": "-" * 32, "DATABASE_URL": url}
            migrations.upgrade(load_settings(variables, place.folder))
            found = asyncio.run(rounds(url, place.folder, options.rounds, options.rows))
            rates, costs = zip(*found, strict=True)
            rate = statistics.median(rates)
            report.tell(f"{kind}: rows a second", rate, at_least=GATE)
            report.tell(f"{kind}: CPU us a row", statistics.median(costs))
            os.sched_setaffinity(0, {_CPUS[-1]})
    report.end()


if __name__ == "__main__":
    main()
