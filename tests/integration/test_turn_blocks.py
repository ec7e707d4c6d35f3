"""Turns with more than text: images, documents, tools, and a pause that is stopped."""

import asyncio
import base64
from typing import Any

import pytest

from tests.client import Client, text_of
from tests.conftest import Server, ServerFactory
from tests.fakes.anthropic import API_KEY, FakeAnthropic
from tests.fakes.faults import numbered_words
from tests.fakes.ollama import FakeOllama
from tests.integration.branch import store_branch

MODEL = "anthropic/claude-opus-5"
PNG: dict[str, Any] = {
    "type": "image",
    "source": {
        "type": "base64",
        "media_type": "image/png",
        "data": base64.b64encode(b"\x89PNG\r\n\x1a\nrest").decode(),
    },
}
QUESTION: list[dict[str, Any]] = [{"type": "text", "text": "Say 3 words"}, PNG]


@pytest.fixture
async def server(
    serve: ServerFactory, fake_anthropic: FakeAnthropic, fake_ollama: FakeOllama
) -> Any:
    variables = {
        "ANTHROPIC_BASE_URL": fake_anthropic.url,
        "ANTHROPIC_API_KEY": API_KEY,
        "OLLAMA_BASE_URL": fake_ollama.url,
    }
    async with serve(**variables) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> Client:
    return await server.client()


async def test_a_model_sees_an_image_in_this_turn_and_the_next(
    client: Client, fake_anthropic: FakeAnthropic
) -> None:
    chat = await client.chat(model=MODEL, title="Named")

    events = await client.ask(chat, QUESTION)  # type: ignore[arg-type]  # blocks will do
    await client.ask(chat, "Say 2 words")

    assert text_of(events) == numbered_words(3)
    for call in fake_anthropic.calls:
        sent = call.body["messages"][0]["content"]
        for block in sent:
            block.pop("cache_control", None)
        assert sent == QUESTION
    assert (await client.messages(chat))[-1]["content"] == QUESTION


async def test_a_chat_of_many_images_goes_on_without_the_oldest(
    server: Server, fake_anthropic: FakeAnthropic
) -> None:
    """TRUST F11: a request stays as small as providers take it."""
    client = await server.client()
    chat = await client.chat(model=MODEL, title="Named")
    photo = {**PNG, "source": {**PNG["source"], "data": "A" * 4_000_000}}
    texts = [[{"type": "text", "text": f"{number}"}] for number in range(12)]
    await store_branch(
        server, chat, [t if n % 2 else [*t, photo] for n, t in enumerate(texts)]
    )

    await client.ask(chat, "Say 2 words")
    reply = (await client.messages(chat))[0]
    await client.post(f"/messages/{reply['id']}/regenerate", json={"stream": False})

    for call in fake_anthropic.calls:
        sent = [message["content"] for message in call.body["messages"]]
        assert sum(block["type"] == "image" for one in sent for block in one) == 4
        assert [one[0]["text"] for one in sent] == [
            "4", "5", "6", "7", "8", "9", "10", "11", "Say 2 words",
        ]  # fmt: skip
        assert call.outcome == "complete"
    assert len(fake_anthropic.calls) == 2


async def test_a_model_that_sees_nothing_gets_no_image(
    client: Client, fake_ollama: FakeOllama
) -> None:
    chat = await client.chat(model="ollama/llama3.2:latest", title="Named")

    refused = await client.post(f"/chats/{chat}/messages", json={"content": QUESTION})

    assert refused.status == 400
    assert refused.json["code"] == "provider_rejected"
    assert refused.json["detail"] == (
        "ollama/llama3.2:latest takes no block of type 'image': it takes text, tools. "
        "Where that is wrong, an admin can register what it takes."
    )
    assert await client.messages(chat) == []
    assert fake_ollama.calls == []
    seeing = await client.ask(chat, QUESTION, model="ollama/tiny-vision:1b")  # type: ignore[arg-type]  # blocks will do
    assert seeing[-1].name == "message_stop"
    assert fake_ollama.calls[0].body["messages"][0]["images"]


async def test_a_wrong_image_is_named_by_its_field(client: Client) -> None:
    chat = await client.chat(model=MODEL, title="Named")
    linked = {"type": "image", "source": {"type": "url", "url": "http://x/"}}

    refused = await client.post(f"/chats/{chat}/messages", json={"content": [linked]})

    assert refused.status == 422
    error, *_ = refused.json["errors"]
    assert error["path"] == "content.0.source.type"
    assert "base64" in error["message"]


async def test_a_call_of_a_tool_is_streamed_stored_and_resumed(
    client: Client, fake_anthropic: FakeAnthropic
) -> None:
    fake_anthropic.plan.update({"tool": "clock", "tool_input": '{"zone": "UTC"}'})
    chat = await client.chat(model=MODEL, title="Named")

    events = await client.ask(chat, "Say 2 words")

    told = [event.data for event in events if event.name == "tool_use"]
    assert told[0] == {"id": "toolu_1", "name": "clock", "input_delta": ""}
    assert "".join(d["input_delta"] for d in told) == '{"zone": "UTC"}'
    message = events[-1].data["message"]
    assert message["status"] == "complete"
    assert message["stop_reason"] == "tool_use"
    assert message["content"] == [
        {"type": "text", "text": numbered_words(2)},
        {
            "type": "tool_use",
            "id": "toolu_1",
            "name": "clock",
            "input": {"zone": "UTC"},
        },
    ]
    path = f"/messages/{message['id']}/stream"
    for number, event in enumerate(events):
        if event.name == "tool_use":
            headers = {"Last-Event-ID": event.id}
            async with client.stream("GET", path, headers=headers) as stream:
                rest = await stream.all()
            got = [e.data for e in events[: number + 1] if e.name == "tool_use"]
            got += [e.data for e in rest if e.name == "tool_use"]
            joined = "".join(d["input_delta"] for d in got)
            assert joined == '{"zone": "UTC"}'


async def test_a_call_that_broke_off_is_made_anew(
    client: Client, fake_anthropic: FakeAnthropic
) -> None:
    plan = {"tool": "clock", "tool_input": '{"a": 1}', "faults": ["missing_end"]}
    fake_anthropic.plan.update(plan)
    chat = await client.chat(model=MODEL, title="Named")
    events = await client.ask(chat, "Say 2 words")
    [reply, _] = await client.messages(chat)
    assert reply["status"] == "error"
    last = next(e for e in reversed(events) if e.name == "tool_use")

    fake_anthropic.plan.update({"words": 3})
    async with client.stream("POST", f"/messages/{reply['id']}/continue") as stream:
        more = await stream.all()

    assert more[0].data["offset"] == len(numbered_words(2))
    message = more[-1].data["message"]
    assert [block["type"] for block in message["content"]] == ["text", "tool_use"]
    assert message["content"][1]["input"] == {"a": 1}
    # Who saw the first call is told where to cut, and gets the second one.
    headers = {"Last-Event-ID": last.id}
    path = f"/messages/{reply['id']}/stream"
    async with client.stream("GET", path, headers=headers) as stream:
        again = await stream.all()
    assert again[0].name == "message_start"
    told = [e.data["input_delta"] for e in again if e.name == "tool_use"]
    assert "".join(told) == '{"a": 1}'


async def test_a_pause_between_tries_can_be_stopped_at_once(
    client: Client, fake_anthropic: FakeAnthropic
) -> None:
    fake_anthropic.plan.update({"faults": ["throttle_first"], "retry_after": "15"})
    chat = await client.chat(model=MODEL, title="Named")

    async with client.asking(chat, "Say 3 words") as stream:
        started = await stream.until("message_start")
        while not fake_anthropic.calls:  # noqa: ASYNC110 - the fake has no event for it
            await asyncio.sleep(0.005)
        await asyncio.wait_for(fake_anthropic.calls[0].ended.wait(), 5)
        message_id = started[0].data["message_id"]
        async with asyncio.timeout(5):
            stopped = await client.post(f"/messages/{message_id}/stop")

    assert stopped.json["status"] == "stopped"
    assert stopped.json["text"] == ""
    assert len(fake_anthropic.calls) == 1
