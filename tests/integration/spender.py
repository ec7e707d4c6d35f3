"""A process that spends: `python -m tests.integration.spender USER AMOUNT COUNT`.

At a line on its standard input it reserves `AMOUNT` so many times at once and prints
how often it could; at another it settles half of each, and prints what was paid; at the
end of its input it closes.
"""

import asyncio
import os
import sys
from pathlib import Path
from uuid import UUID

from app import tasks
from app.core.config import load_settings
from app.services.runtime import Runtime
from tests.integration.house import USAGE, try_all

_ = tasks  # importing it registers them: warnings go out by one


async def told() -> None:
    await asyncio.to_thread(sys.stdin.readline)


def tell(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def main(user: UUID, amount: int, count: int) -> None:
    runtime = Runtime.build(load_settings(os.environ, Path(os.environ["DATA_DIR"])))
    await runtime.bus.open()
    await runtime.plans.open()
    await runtime.credits.open(alone=False)
    tell("ready")
    await told()
    got, _ = await try_all([runtime.credits], user, amount, count)
    tell(len(got))
    await told()
    paid = [runtime.credits.settle(one, amount // 2, USAGE) for one in got]
    await runtime.credits.flush()
    tell(sum(paid))
    await told()
    await runtime.credits.close()
    await runtime.bus.close()
    await runtime.database.close()


if __name__ == "__main__":
    asyncio.run(main(UUID(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
