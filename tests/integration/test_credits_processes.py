"""TRUST M1 with real processes, a real Redis, and a real `kill -9`."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest

from app.core.database import Database
from tests.e2e.processes import environment
from tests.integration.house import House, try_all

AMOUNT, K, TRIES = 1000, 60, 100


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    house = House(database)
    yield house
    await house.close()


Spenders = Callable[[int, UUID], Awaitable[list[Process]]]


@pytest.fixture
async def start(
    database_variables: dict[str, str], redis_url: str, tmp_path: Path
) -> AsyncIterator[Spenders]:
    """Starts so many processes that spend for a user."""
    variables = environment(
        {
            "SECRET_KEY": "a secret key that is only for tests",
            "DATA_DIR": str(tmp_path),
            "REDIS_URL": redis_url,
            "LOG_LEVEL": "ERROR",
            **database_variables,
        }
    )
    started: list[Process] = []

    async def start(count: int, user: UUID) -> list[Process]:
        module = "tests.integration.spender"
        for _ in range(count):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, str(user), str(AMOUNT), str(TRIES)),
                stdin=PIPE,
                stdout=PIPE,
                env=variables,
            )
            started.append(process)
        for process in started:
            assert await heard(process) == "ready"
        return started

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def say(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    await process.stdin.drain()


async def heard(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return (await process.stdout.readline()).decode().strip()


async def numbers(processes: list[Process]) -> list[int]:
    await asyncio.gather(*map(say, processes))
    return [int(await heard(process)) for process in processes]


async def test_processes_admit_no_more_than_is_affordable_and_a_kill_loses_nothing(
    house: House, start: Spenders
) -> None:
    """TRUST M1, F1."""
    user = await house.user(monthly_credits=K * AMOUNT)
    processes = await start(3, user)

    admitted = await numbers(processes)
    paid = await numbers(processes)
    killed, *others = processes
    killed.kill()
    for process in others:
        process.stdin.close()  # type: ignore[union-attr]  # it was asked for
        assert await process.wait() == 0
    await killed.wait()

    assert 0 < sum(admitted) <= K
    assert paid == [count * AMOUNT // 2 for count in admitted]
    account = await house.assert_sound(user)
    # The others have settled; the killed one may have had no time to.
    left = K * AMOUNT - sum(paid)
    assert left <= account.balance <= left + paid[0]
    await house.expire()
    again = await house.process()
    account = await house.assert_sound(user)
    assert (account.balance, account.leased) == (K * AMOUNT - sum(paid), 0)
    rest, _ = await try_all([again], user, AMOUNT, TRIES)
    assert len(rest) == account.balance // AMOUNT
