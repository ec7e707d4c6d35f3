"""Several server processes behind one port, over a real Redis."""

import asyncio
import os
import random
import signal
from pathlib import Path

import aiohttp
import psutil
import pytest
import pytest_asyncio

from tests.client import Client
from tests.e2e.conftest import Fakes, NewDatabase, Provider, with_any_provider
from tests.e2e.processes import Server, until
from tests.e2e.reading import Reader
from tests.fakes.faults import numbered_words

pytestmark = [pytest.mark.asyncio(loop_scope="session"), with_any_provider]

AT_ONCE = 50


@pytest_asyncio.fixture(loop_scope="session")
async def workers(  # noqa: PLR0917 - what a server stands on
    http: aiohttp.ClientSession,
    provider: Provider,
    fakes: Fakes,
    new_database: NewDatabase,
    redis_url: str,
    tmp_path: Path,
) -> Server:
    variables = {**fakes.variables, **await new_database()}
    server = Server(http, tmp_path, REDIS_URL=redis_url, **variables)
    server.arguments = ["--workers", "2"]
    return server


async def one_turn(client: Client, model: str, number: int, *, words: int) -> int:
    """A turn whose client, one in three, drops at random; gives the number of drops."""
    chance = random.Random(number)
    reader = Reader(client)
    chat = await client.chat(model=model, title="Named")
    drops = number % 3 == 0
    most = chance.randint(1, words // 2) if drops else 0
    await reader.ask(chat, f"Say {words} words", words=most)
    cuts = 0
    while reader.end is None:
        cuts += 1
        await reader.resume(words=chance.randint(1, words // 2))
    assert reader.text == numbered_words(words)
    assert reader.message["text"] == reader.text
    assert reader.message["status"] == "complete"
    assert reader.offsets == [0]
    return cuts


async def many_turns(server: Server, model: str, count: int) -> int:
    # Nobody comes near the limits of a plan.
    clients = [await server.client() for _ in range(0, count, 50)]
    gate = asyncio.Semaphore(AT_ONCE)

    async def turn(number: int) -> int:
        async with gate:
            client = clients[number % len(clients)]
            return await one_turn(client, model, number, words=40)

    return sum(await asyncio.gather(*(turn(n) for n in range(count))))


async def test_turns_over_two_workers_lose_and_double_no_byte(
    workers: Server, provider: Provider
) -> None:
    """F2: each request may meet either process."""
    provider.fake.plan.chunk_delay = 0.005
    name = 'workroom_turns_total{provider="openai",status="complete"}'

    async def told() -> bool:
        counts = await workers.anonymous().get("/metrics")
        return f"{name} 60.0" in counts.body.decode()

    await workers.start()
    try:
        cuts = await many_turns(workers, provider.model, 60)
        await until(told, "both processes to tell what they counted")
    finally:
        await workers.stop()

    assert cuts >= 20
    assert workers.complaints() == []


@pytest.mark.slow
async def test_a_thousand_turns_over_two_workers(
    workers: Server, provider: Provider
) -> None:
    """F2, in earnest."""
    provider.fake.plan.chunk_delay = 0.005
    await workers.start()
    try:
        cuts = await many_turns(workers, provider.model, 1000)
    finally:
        await workers.stop()

    assert cuts >= 333
    assert workers.complaints() == []


@pytest.mark.slow
async def test_a_worker_that_dies_is_replaced_and_its_reply_goes_on(
    workers: Server, provider: Provider
) -> None:
    """F1 with Redis: what it wrote is there to the last event."""
    provider.fake.plan.faults = ["stall"]
    workers.settings |= {
        "TURN_CHECKPOINT_SECONDS": "1",
        "TURN_LEASE_SECONDS": "2",
    }
    await workers.start()
    try:
        client = await workers.client()
        reader = Reader(client)
        chat = await client.chat(model=provider.model, title="Named")
        await reader.ask(chat, "Say 50 words", words=5)
        held = reader.text
        for process in psutil.Process(workers.pid).children():
            if "spawn_main" in " ".join(process.cmdline()):
                os.kill(process.pid, signal.SIGKILL)

        async def interrupted() -> bool:
            try:
                found = await client.get(f"/messages/{reader.message_id}")
            except aiohttp.ClientError:
                return False
            return found.status == 200 and found.json["status"] == "interrupted"

        await until(interrupted, "the reply to be called interrupted")
        kept = (await client.get(f"/messages/{reader.message_id}")).json["text"]
        assert kept == held
        async with client.stream(
            "POST", f"/messages/{reader.message_id}/continue"
        ) as stream:
            await stream.all()
        final = (await client.get(f"/messages/{reader.message_id}")).json
        assert final["text"] == numbered_words(50)
    finally:
        await workers.stop()


async def test_sigterm_ends_all_workers_in_order(
    workers: Server, provider: Provider
) -> None:
    """F7."""
    provider.fake.plan.chunk_delay = 0.01
    await workers.start()
    client = await workers.client()
    reader = Reader(client)
    chat = await client.chat(model=provider.model, title="Named")
    asking = asyncio.create_task(reader.ask(chat, "Say 60 words"))
    await until(lambda: _has_text(reader), "the first words")

    workers.send(signal.SIGTERM)
    await asking
    assert await workers.exit_code() == 0

    assert reader.text == numbered_words(60)
    assert workers.complaints() == []


async def _has_text(reader: Reader) -> bool:
    return bool(reader.text)
