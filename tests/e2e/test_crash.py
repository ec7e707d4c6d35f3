"""`kill -9`: what is kept of a reply and of a job, and how they go on."""

import asyncio
import time

import pytest

from tests.e2e.conftest import (
    Begin,
    NewDatabase,
    Provider,
    create_database,
    with_any_provider,
)
from tests.e2e.processes import Server, until
from tests.e2e.reading import Reader
from tests.fakes.faults import FaultPlan, numbered_words

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROMISED = 1.0
"""Seconds of text that a crash may cost."""


async def killed_in_mid_reply(
    server: Server, reader: Reader, chat: str, content: str, *, after: float
) -> int:
    """Kill the server so long after the first word, then start it again.

    Gives how many characters the reader had seen PROMISED seconds before the kill.
    """
    seen: list[tuple[float, int]] = []
    async with reader.client.asking(chat, content) as stream:
        async for event in stream:
            reader.take(event)
            seen.append((time.monotonic(), len(reader.text)))
            if seen[-1][0] - seen[0][0] > after:
                break
        killed = time.monotonic()
        await server.kill()
        await reader.read_what_comes(stream)
    assert reader.end is None
    await server.start()
    return max((n for at, n in seen if at <= killed - PROMISED), default=0)


async def test_a_killed_server_keeps_the_text_and_continues_it_exactly(
    server: Server, provider: Provider
) -> None:
    """F1, with two clients that had seen more than was saved."""
    provider.fake.plan.chunk_delay = 0.005
    reader = Reader(await server.client())
    chat = await reader.client.chat(model=provider.model, title="Named")

    safe = await killed_in_mid_reply(
        server, reader, chat, "Say 600 words", after=PROMISED + 0.3
    )

    found = await reader.client.get(f"/messages/{reader.message_id}")
    kept = found.json["text"]
    assert found.json["status"] == "interrupted"
    assert found.json["usage"]["estimated"]
    assert reader.text.startswith(kept)
    assert len(kept) >= safe > 0

    provider.fake.plan.chunk_delay = 0
    early, late = reader.copy(), reader.copy()
    await early.resume()  # before anybody continues
    assert early.message == found.json
    assert (early.offsets, early.text) == ([len(kept)], kept)
    await reader.go_on()
    assert reader.offsets[-1] == len(kept)
    assert reader.text == numbered_words(600)
    assert reader.message["status"] == "complete"
    await late.resume()  # after all is over, with an id of before the crash
    assert late.offsets == [len(kept)]
    assert late.text == numbered_words(600)
    assert late.message == reader.message


@with_any_provider
async def test_a_reply_without_a_word_yet_is_written_after_the_restart(
    server: Server, provider: Provider
) -> None:
    """F1, in the first moment."""
    provider.fake.plan.faults, provider.fake.plan.at_chunk = ["stall"], 0
    reader = Reader(await server.client())
    chat = await reader.client.chat(model=provider.model, title="Named")
    async with reader.client.asking(chat, "Say 30 words") as stream:
        reader.take((await stream.until("message_start"))[0])
        await until(lambda: calls(provider, 1), "the call of the model")
        await server.kill()
    await server.start()

    await reader.resume()
    assert reader.message["status"] == "interrupted"
    assert reader.text == reader.message["text"] == ""
    await reader.go_on()
    assert reader.text == numbered_words(30)


@with_any_provider
async def test_a_client_comes_back_while_another_one_continues(
    server: Server, provider: Provider
) -> None:
    """F1 and F2: an id of before the crash, into a stream that runs again."""
    provider.fake.plan.chunk_delay = 0.005
    reader = Reader(await server.client())
    chat = await reader.client.chat(model=provider.model, title="Named")
    await killed_in_mid_reply(server, reader, chat, "Say 500 words", after=0.5)
    returning = reader.copy()

    provider.fake.plan.chunk_delay = 0.001
    await reader.go_on(words=20)
    await asyncio.gather(reader.resume(), returning.resume())

    assert reader.text == returning.text == numbered_words(500)
    assert reader.message == returning.message


@with_any_provider
async def test_what_a_crash_took_stays_taken_however_often_the_reply_goes_on(
    begin: Begin, new_database: NewDatabase, provider: Provider
) -> None:
    """F1: each attempt writes other words, so that old ones show where they stay."""
    server = await begin(TURN_CHECKPOINT_SECONDS="1", **await new_database())
    plan = provider.fake.plan = FaultPlan(chunk_delay=0.005)
    plan.reply = lambda _dialogue: numbered_words(500)
    reader = Reader(await server.client())
    chat = await reader.client.chat(model=provider.model, title="Named")
    async with reader.client.asking(chat, "Write") as stream:
        await reader.read(stream, words=5)
        saved = await until(lambda: saved_words(reader), "the first checkpoint")
        await reader.read(stream, words=saved + 20)  # well before the next one
        await server.kill()
        await reader.read_what_comes(stream)
    await server.start()
    kept = (await reader.client.get(f"/messages/{reader.message_id}")).json["text"]
    returning = reader.copy()
    assert len(returning.text) > len(kept) > 0

    plan.reply = lambda _dialogue: " second" * 100
    await reader.go_on(words=60)
    stopped = await reader.client.post(f"/messages/{reader.message_id}/stop")
    assert len(stopped.json["text"]) > len(returning.text)
    await reader.resume()
    plan.reply = lambda _dialogue: " third" * 10
    await reader.go_on()
    await returning.resume()

    assert reader.text == reader.message["text"]
    assert reader.text.startswith(f"{kept} second second")
    assert reader.text.endswith(" third third")
    assert returning.text == reader.text


@with_any_provider
async def test_a_job_of_a_killed_worker_is_taken_up_again(
    server: Server, provider: Provider
) -> None:
    """F4."""
    provider.fake.plan.faults = ["none", "stall"]
    client = await server.client()
    chat = await client.chat(model=provider.model)
    await Reader(client).ask(chat, "Say 5 words")
    await until(lambda: calls(provider, 2), "the job's call of the model")
    assert (await server.health()).json["jobs"]["running"] == 1

    await server.kill()
    await server.start()

    await until(lambda: all_done(server), "the jobs to be done")
    assert (await client.get(f"/chats/{chat}")).json["title"] == numbered_words(5)
    assert len(provider.fake.calls) == 3


async def saved_words(reader: Reader) -> int:
    found = await reader.client.get(f"/messages/{reader.message_id}")
    return len(found.json["text"].split())


async def calls(provider: Provider, count: int) -> bool:
    return len(provider.fake.calls) >= count


async def all_done(server: Server) -> bool:
    return set((await server.health()).json["jobs"]) == {"succeeded"}


@with_any_provider
async def test_a_second_server_finds_what_a_killed_one_left(
    begin: Begin, provider: Provider, postgres_url: str, redis_url: str
) -> None:
    """F1 and F4 where processes share a database: leases run out."""
    shared = {
        "DATABASE_URL": await create_database(postgres_url),
        "REDIS_URL": redis_url,
        "TURN_LEASE_SECONDS": "2",
        "JOB_LEASE_SECONDS": "2",
    }
    dying, living = await asyncio.gather(begin(**shared), begin(**shared))
    provider.fake.plan.faults = ["none", "stall", "stall"]
    client = await dying.client()
    chat = await client.chat(model=provider.model)
    await Reader(client).ask(chat, "Say 5 words")
    await until(lambda: calls(provider, 2), "the job's call of the model")
    reader = Reader(client)
    named = await client.chat(model=provider.model, title="Named")
    await reader.ask(named, "Say 50 words", words=5)

    await dying.kill()

    reader.client = living.as_before(client)
    await reader.resume()  # a stream that waits for what becomes of the reply
    assert reader.message["status"] == "interrupted"
    await reader.go_on()
    assert reader.text == numbered_words(50)
    await until(lambda: all_done(living), "the jobs to be done")
    chat_now = await reader.client.get(f"/chats/{chat}")
    assert chat_now.json["title"] == numbered_words(5)
