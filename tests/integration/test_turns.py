"""The main job: a chat turn that cannot be lost (TRUST F1, F2)."""

import asyncio
from typing import Any

import pytest

from app.models import Message
from tests.client import text_of
from tests.conftest import Server
from tests.fakes.bedrock import ACCESS_KEY, REGION, SECRET_KEY, FakeBedrock
from tests.fakes.faults import numbered_words
from tests.fakes.openai import FakeOpenAI

BEDROCK_MODEL = "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0"
OPENAI_MODEL = "openai/fake-small"


@pytest.fixture(params=["openai", "bedrock"])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fake(provider: str, request: pytest.FixtureRequest) -> FakeOpenAI | FakeBedrock:
    fake: FakeOpenAI | FakeBedrock = request.getfixturevalue(f"fake_{provider}")
    return fake


@pytest.fixture
def model(provider: str) -> str:
    return OPENAI_MODEL if provider == "openai" else BEDROCK_MODEL


@pytest.fixture
def variables(provider: str, fake: Any) -> dict[str, str]:
    if provider == "openai":
        return {"OPENAI_BASE_URL": fake.base_url}
    return {
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "BEDROCK_BASE_URL": fake.url,
    }


@pytest.fixture
async def model_server(serve: Any, variables: dict[str, str]) -> Any:
    async with serve(**variables) as server:
        yield server


async def test_a_turn_streams_every_byte_and_stores_it(
    model_server: Server, model: str
) -> None:
    client = await model_server.client()
    chat = await client.chat(model=model, title="Named")

    events = await client.ask(chat, "Say 50 words")

    names = [e.name for e in events]
    assert names[0] == "message_start"
    assert names[-2:] == ["usage", "message_stop"]
    assert set(names[1:-2]) == {"delta"}
    assert text_of(events) == numbered_words(50)
    final = events[-1].data["message"]
    assert final["text"] == numbered_words(50)
    assert final["status"] == "complete"
    assert final["stop_reason"] == "end_turn"
    assert final["usage"]["input_tokens"] == 25
    assert final["usage"]["output_tokens"] == 50
    assert not final["usage"]["estimated"]
    reply, question = await client.messages(chat)
    assert reply == final
    assert question["text"] == "Say 50 words"
    assert reply["parent_id"] == question["id"]


async def test_a_client_that_drops_resumes_without_a_lost_or_doubled_byte(
    model_server: Server, model: str, fake: FakeOpenAI
) -> None:
    """F2."""
    fake.plan.chunk_delay = 0.002
    client = await model_server.client()
    chat = await client.chat(model=model, title="Named")

    async with client.asking(chat, "Say 100 words") as stream:
        first = await stream.words(20)
    message_id = first[0].data["message_id"]
    received = list(first)
    while received[-1].name not in {"message_stop", "error"}:
        async with client.stream(
            "GET",
            f"/messages/{message_id}/stream",
            headers={"Last-Event-ID": received[-1].id},
        ) as stream:
            received += await stream.words(20)

    assert text_of(received) == numbered_words(100)
    assert [e.name for e in received].count("message_start") == 1
    assert len({e.id for e in received if e.name == "delta"}) == len(
        [e for e in received if e.name == "delta"]
    )
    assert received[-1].name == "message_stop"


async def test_the_turn_goes_on_when_nobody_listens(
    model_server: Server, model: str, fake: FakeOpenAI
) -> None:
    fake.plan.chunk_delay = 0.002
    client = await model_server.client()
    chat = await client.chat(model=model, title="Named")

    async with client.asking(chat, "Say 60 words") as stream:
        started = await stream.until("delta")

    message_id = started[0].data["message_id"]
    async with client.stream("GET", f"/messages/{message_id}/stream") as stream:
        events = await stream.all()
    assert text_of(events) == numbered_words(60)
    assert events[0].data["offset"] == 0


async def test_stop_keeps_the_text_and_continue_goes_on_from_it(
    model_server: Server, model: str, fake: FakeOpenAI
) -> None:
    fake.plan.chunk_delay = 0.005
    client = await model_server.client()
    chat = await client.chat(model=model, title="Named")

    async with client.asking(chat, "Say 80 words") as stream:
        events = await stream.words(10)
        message_id = events[0].data["message_id"]
        stopped = await client.post(f"/messages/{message_id}/stop")
        events = await stream.all()

    assert stopped.status == 200
    assert stopped.json["status"] == "stopped"
    kept = stopped.json["text"]
    assert kept
    assert numbered_words(80).startswith(kept)
    assert stopped.json["usage"]["estimated"]
    assert events[-1].data["message"] == stopped.json

    async with client.stream("POST", f"/messages/{message_id}/continue") as stream:
        more = await stream.all()
    assert more[0].data["offset"] == len(kept)
    assert kept + text_of(more) == numbered_words(80)
    assert more[-1].data["message"]["text"] == numbered_words(80)
    assert more[-1].data["message"]["status"] == "complete"
    assert (await client.messages(chat))[0]["id"] == message_id


async def test_without_streaming_the_reply_comes_whole(
    model_server: Server, model: str, fake: FakeOpenAI
) -> None:
    client = await model_server.client()
    chat = await client.chat(model=model, title="Named")

    answer = await client.post(
        f"/chats/{chat}/messages", json={"content": "Say 5 words", "stream": False}
    )

    assert answer.status == 201
    assert answer.json["text"] == numbered_words(5)

    fake.plan.faults = ["unavailable"] * 3  # and so in all tries
    failed = await client.post(
        f"/chats/{chat}/messages", json={"content": "Say 5 words", "stream": False}
    )
    assert failed.status == 503
    assert failed.json["code"] == "provider_unavailable"
    stored = await client.get(f"/messages/{failed.json['message_id']}")
    assert stored.json["status"] == "error"


async def test_the_history_is_what_the_model_gets(
    model_server: Server, model: str, fake: FakeOpenAI
) -> None:
    client = await model_server.client()
    chat = await client.chat(model=model, title="Named", system_prompt="Be brief.")
    await client.ask(chat, "Say 3 words")
    await client.ask(chat, "Say 4 words")

    body = fake.calls[-1].body
    assert "Be brief." in str(body)
    texts = [str(m["content"]) for m in body["messages"] if m["role"] != "system"]
    assert len(texts) == 3
    assert "Say 3 words" in texts[0]
    assert numbered_words(3) in texts[1]
    assert "Say 4 words" in texts[2]


async def test_a_turn_of_a_process_that_died_ends_interrupted(
    serve: Any, variables: dict[str, str], model: str, fake: FakeOpenAI
) -> None:
    """F1, in one process: the second server finds what the first one left."""
    fake.plan.faults = ["stall"]
    async with serve(**variables) as first:
        client = await first.client()
        chat = await client.chat(model=model, title="Named")
        async with client.asking(chat, "Say 40 words") as stream:
            events = await stream.words(5)
        message_id = events[0].data["message_id"]
        turn = first.runtime.turns._running.pop(__import__("uuid").UUID(message_id))
        while turn.saved is None or turn.saved[0] != turn.reply.position:
            first.runtime.turns._running[turn.message.id] = turn
            await asyncio.sleep(0.01)
        first.runtime.turns._running.clear()  # from here on nobody saves: it is dead

        async with serve(**variables) as second:
            again = second.anonymous()
            again.use(client.tokens)
            found = await again.get(f"/messages/{message_id}")
            assert found.json["status"] == "interrupted"
            kept = found.json["text"]
            assert kept == text_of(events)[: len(kept)]
            assert kept
            async with again.stream(
                "POST", f"/messages/{message_id}/continue"
            ) as stream:
                more = await stream.all()
            assert kept + text_of(more) == numbered_words(40)
        first.runtime.turns._running[turn.message.id] = turn


def test_message_is_no_god_row() -> None:
    assert len(Message.__table__.columns) < 20
