"""SIGTERM: what runs ends well, what comes is told to come back later."""

import asyncio
import signal

import pytest

from tests.client import Answer
from tests.e2e.conftest import Begin, NewDatabase, Provider, with_any_provider
from tests.e2e.processes import Server, until
from tests.e2e.reading import Reader
from tests.fakes.faults import numbered_words

pytestmark = pytest.mark.asyncio(loop_scope="session")


def assert_unavailable(answer: Answer) -> None:
    assert answer.status == 503
    assert answer.json["code"] == "unavailable"
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Content-Type"] == "application/problem+json"


@with_any_provider
async def test_a_running_reply_ends_while_new_ones_are_refused(
    server: Server, provider: Provider
) -> None:
    """F7: readiness drops, streams drain, and nothing but new work gets a 5xx."""
    provider.fake.plan.chunk_delay = 0.005
    reader = Reader(await server.client())
    chat = await reader.client.chat(model=provider.model, title="Named")
    idle = await reader.client.chat(model=provider.model, title="Named")

    async with reader.client.asking(chat, "Say 200 words") as stream:
        await reader.read(stream, words=20)
        returning = reader.copy()
        server.send(signal.SIGTERM)
        await until(lambda: is_stopping(server), "the end to begin")

        ready = await server.anonymous().get("/health/ready")
        assert ready.status == 503
        assert ready.json["checks"]["shutdown"] == "shutting down"
        live = await reader.client.get("/health/live")
        assert live.status == 200
        message = {"content": "Say 5 words"}
        assert_unavailable(
            await reader.client.post(f"/chats/{idle}/messages", json=message)
        )
        assert (await reader.client.get("/chats")).status == 200
        assert (await reader.client.get("/auth/me")).status == 200
        await asyncio.gather(reader.read(stream), returning.resume())

    assert reader.text == returning.text == numbered_words(200)
    assert reader.message["status"] == "complete"
    assert await server.exit_code() == 0
    assert "stopped" in server.log.splitlines()[-1]


async def is_stopping(server: Server) -> bool:
    """Whether it has said so since its last start."""
    since = server.log.rpartition("workroom: Workroom is at")[2]
    return "workroom: stopping" in since


@with_any_provider
async def test_a_reply_that_takes_too_long_is_interrupted_and_kept(
    begin: Begin, new_database: NewDatabase, provider: Provider
) -> None:
    """F7: SHUTDOWN_SECONDS bounds the wait; the text goes on after the next start."""
    server = await begin(**await new_database(), SHUTDOWN_SECONDS="0.3")
    provider.fake.plan.chunk_delay = 0.005
    reader = Reader(await server.client())
    chat = await reader.client.chat(model=provider.model, title="Named")

    async with reader.client.asking(chat, "Say 1000 words") as stream:
        await reader.read(stream, words=20)
        server.send(signal.SIGTERM)
        await reader.read(stream)

    assert reader.message["status"] == "interrupted"
    assert reader.message["text"] == reader.text
    assert await server.exit_code() == 0
    (call,) = provider.fake.calls
    assert call.outcome == "dropped"

    await server.start()
    found = await reader.client.get(f"/messages/{reader.message_id}")
    assert found.json == reader.message
    provider.fake.plan.chunk_delay = 0
    await reader.go_on()
    assert reader.text == numbered_words(1000)


@with_any_provider
async def test_a_whole_answer_is_given_before_the_end(
    server: Server, provider: Provider
) -> None:
    """F7, for a client that does not stream."""
    provider.fake.plan.chunk_delay = 0.005
    client = await server.client()
    chat = await client.chat(model=provider.model, title="Named")
    message = {"content": "Say 100 words", "stream": False}

    waiting = asyncio.create_task(client.post(f"/chats/{chat}/messages", json=message))
    await until(lambda: is_called(provider), "the call of the model")
    server.send(signal.SIGTERM)
    answer = await waiting

    assert answer.status == 201
    assert answer.json["text"] == numbered_words(100)
    assert await server.exit_code() == 0


async def is_called(provider: Provider) -> bool:
    return bool(provider.fake.calls)


@with_any_provider
async def test_a_job_that_takes_too_long_runs_again_after_the_next_start(
    begin: Begin, new_database: NewDatabase, provider: Provider
) -> None:
    """F4 and F7: its claim is given back."""
    server = await begin(**await new_database(), SHUTDOWN_SECONDS="0.2")
    provider.fake.plan.faults = ["none", "stall"]
    client = await server.client()
    chat = await client.chat(model=provider.model)
    await Reader(client).ask(chat, "Say 5 words")
    await until(lambda: is_called_again(provider), "the job's call of the model")

    server.send(signal.SIGTERM)
    assert await server.exit_code() == 0
    await server.start()

    async def named() -> object:
        return (await client.get(f"/chats/{chat}")).json["title"]

    await until(named, "the title")

    async def at_rest() -> bool:
        jobs = (await server.health()).json["jobs"]
        assert "dead" not in jobs
        return "running" not in jobs

    await until(at_rest, "the end of every job")


async def is_called_again(provider: Provider) -> bool:
    return len(provider.fake.calls) == 2


@with_any_provider
async def test_a_second_ctrl_c_does_not_wait(
    server: Server, provider: Provider
) -> None:
    """F1 and F7: what was saved is there after the next start."""
    provider.fake.plan.chunk_delay = 0.01
    reader = Reader(await server.client())
    chat = await reader.client.chat(model=provider.model, title="Named")

    async with reader.client.asking(chat, "Say 1000 words") as stream:
        await reader.read(stream, words=50)
        server.send(signal.SIGINT)
        await until(lambda: is_stopping(server), "the end to begin")
        server.send(signal.SIGINT)
        await asyncio.gather(reader.read_what_comes(stream), server.exit_code())
    server.complaints()  # uvicorn's, about what it had to cancel

    assert len(reader.text) < len(numbered_words(1000))
    await server.start()
    found = await reader.client.get(f"/messages/{reader.message_id}")
    assert found.json["status"] == "interrupted"
    assert reader.text.startswith(found.json["text"])
