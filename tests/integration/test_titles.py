"""A chat's name, made by a job after its first turn."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from app.core.database import utcnow
from app.core.queue import get_task
from app.models import Job, UsageDay
from app.services.chat.titles import shorten
from tests.client import Client
from tests.conftest import Server
from tests.fakes.faults import numbered_words
from tests.fakes.openai import FakeOpenAI

MODEL = "openai/fake-small"
TITLE = numbered_words(3)
"""What the fake says of a conversation in which somebody asks for "3 words"."""


async def title_job(server: Server, state: str) -> Job:
    """The one job that names a chat, once it is in that state after a try."""
    tried = select(Job).where(Job.name == "chat.title", Job.attempts > 0)
    async with asyncio.timeout(10):
        while True:
            async with server.runtime.database.unit_of_work(read_only=True) as session:
                job: Job | None = await session.scalar(tried)
            if job is not None and job.state == state:
                return job
            await asyncio.sleep(0.01)


async def try_again(server: Server, job: Job) -> None:
    """Run it as its next try would be run; the worker's own comes too late to mix."""
    async with server.runtime.database.unit_of_work() as session:
        later = utcnow() + timedelta(hours=1)
        await session.execute(update(Job).where(Job.id == job.id).values(run_at=later))
    await get_task(job.name).function(server.runtime, **job.args)


async def calls_paid(server: Server) -> int:
    """How many calls for titles are in the books."""
    await server.runtime.credits.flush()
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        booked = select(func.coalesce(func.sum(UsageDay.requests), 0))
        found = await session.scalar(booked.where(UsageDay.kind == "title"))
    return int(found or 0)


async def title_of(client: Client, chat: str) -> str:
    async with asyncio.timeout(10):
        while True:
            title = (await client.get(f"/chats/{chat}")).json["title"]
            if title is not None:
                return str(title)
            await asyncio.sleep(0.01)


async def test_the_model_names_the_chat(serve: Any, fake_openai: FakeOpenAI) -> None:
    fake_openai.plan.reply = lambda dialogue: (
        '"Sailing to Byzantium."\nand more' if "And" in str(dialogue) else "And?"
    )
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL)
        await client.ask(chat, "Hello")
        before = (await client.get(f"/chats/{chat}")).json["updated_at"]

        title = await title_of(client, chat)
        after = (await client.get(f"/chats/{chat}")).json["updated_at"]

    assert title == "Sailing to Byzantium"
    assert after == before


async def test_without_a_models_help_the_question_names_it(server: Server) -> None:
    client = await server.client()
    chat = await client.chat()
    await client.ask(chat, "How do I connect AWS Bedrock?\nPlease.")

    assert await title_of(client, chat) == "How do I connect AWS Bedrock?"


async def test_a_refusal_is_tried_again_at_once(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    """TRUST M2: and paid for once."""
    fake_openai.plan.faults = ["none", "unavailable", "throttle_first"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL)
        await client.ask(chat, "Say 3 words")

        assert await title_of(client, chat) == TITLE
        outcomes = [call.outcome for call in fake_openai.calls]
        assert outcomes == ["complete", "refused", "refused", "complete"]
        assert await calls_paid(server) == 1


async def test_a_model_that_is_away_names_the_chat_when_it_is_back(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    """TRUST M2: the job comes back later, and it is paid for once."""
    fake_openai.plan.faults = ["none", "unavailable", "unavailable"]
    variables = {"OPENAI_BASE_URL": fake_openai.base_url, "PROVIDER_RETRIES": "1"}
    async with serve(**variables) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL)
        await client.ask(chat, "Say 3 words")

        assert await title_of(client, chat) == "Say 3 words"
        job = await title_job(server, "queued")
        assert job.attempts == 1
        assert job.run_at > utcnow()
        assert str(job.error).startswith("ProviderUnavailableError")
        assert await calls_paid(server) == 0
        await try_again(server, job)
        assert (await client.get(f"/chats/{chat}")).json["title"] == TITLE
        assert await calls_paid(server) == 1
        await try_again(server, job)
        assert len(fake_openai.calls) == 4


async def test_a_name_that_was_given_meanwhile_stays(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    fake_openai.plan.faults = ["none", "unavailable"]
    variables = {"OPENAI_BASE_URL": fake_openai.base_url, "PROVIDER_RETRIES": "0"}
    async with serve(**variables) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL)
        await client.ask(chat, "Say 3 words")
        job = await title_job(server, "queued")
        await client.patch(f"/chats/{chat}", json={"title": "Mine"})

        await try_again(server, job)

        assert (await client.get(f"/chats/{chat}")).json["title"] == "Mine"
        assert len(fake_openai.calls) == 2


async def test_what_broke_off_is_paid_for_and_not_asked_again(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    """TRUST M2."""
    fake_openai.plan.faults = ["none", "cut"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL)
        await client.ask(chat, "Say 3 words")

        assert await title_of(client, chat) == "Say 3 words"
        await title_job(server, "succeeded")
        assert len(fake_openai.calls) == 2
        assert await calls_paid(server) == 1


async def test_an_emptied_chat_needs_no_name(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL)

        await get_task("chat.title").function(server.runtime, chat_id=chat)

        assert (await client.get(f"/chats/{chat}")).json["title"] is None
        assert fake_openai.calls == []


async def test_a_name_that_was_given_stays(serve: Any, fake_openai: FakeOpenAI) -> None:
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Mine")
        await client.ask(chat, "Hello")

        assert (await client.get(f"/chats/{chat}")).json["title"] == "Mine"
        assert len(fake_openai.calls) == 1


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        ("  Hello \n\n world", "Hello"),
        ("", "Chat"),
        ("word " * 30, "word " * 11 + "word…"),
    ],
)
def test_a_long_line_is_cut_between_words(text: str, title: str) -> None:
    assert shorten(text) == title
