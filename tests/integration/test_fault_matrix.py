"""TRUST F3: every fault of an upstream, by every provider, on both databases.

What strikes after the first token is a typed error: the text so far is kept, usage is
recorded, and `continue` completes the exact text. What strikes before is tried again.
"""

from typing import Any

import pytest

from tests.client import Client, Event, text_of
from tests.conftest import Server
from tests.fakes.faults import Fault, numbered_words
from tests.integration.providers import MODELS, variables_for

BROKEN = "provider_stream_broken"
EXCEPTIONS = {
    "anthropic": "provider_unavailable",
    "bedrock": "provider_throttled",
    "mantle": "provider_unavailable",
    "ollama": "provider_unavailable",
    "openai": "provider_throttled",
}
"""What each fake's error in mid-stream is: it has its own idea of one."""


@pytest.fixture(params=sorted(MODELS))
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fake(provider: str, request: pytest.FixtureRequest) -> Any:
    name = "bedrock" if provider == "mantle" else provider
    return request.getfixturevalue(f"fake_{name}")


@pytest.fixture
async def model_server(provider: str, fake: Any, serve: Any) -> Any:
    variables = variables_for(provider, fake)
    async with serve(**variables, PROVIDER_STALL_SECONDS="1") as server:
        yield server


@pytest.fixture
async def client(model_server: Server) -> Client:
    return await model_server.client()


@pytest.fixture
async def chat(client: Client, provider: str) -> str:
    return await client.chat(model=MODELS[provider], title="Named")


async def failed_reply(client: Client, chat: str, events: list[Event]) -> Any:
    """The stored reply, which tells what the stream told."""
    assert events[-1].name == "error"
    assert "message_stop" not in {event.name for event in events}
    reply, question = await client.messages(chat)
    assert question["status"] == "complete"
    assert reply["status"] == "error"
    assert reply["stop_reason"] is None
    assert reply["error"] == events[-1].data["problem"]
    assert reply["text"] == text_of(events)
    return reply


async def continued(client: Client, reply: Any) -> list[Event]:
    path = f"/messages/{reply['id']}/continue"
    async with client.stream("POST", path) as stream:
        return await stream.all()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("midstream_exception", 5),
        ("bad_crc", 5),
        ("cut", 5),
        ("stall", 5),
        ("missing_end", 30),
    ],
)
async def test_a_fault_in_mid_stream_is_typed_and_loses_nothing(
    client: Client, chat: str, fake: Any, provider: str, *, fault: Fault, words: int
) -> None:
    fake.plan.faults = [fault]

    events = await client.ask(chat, "Say 30 words")

    reply = await failed_reply(client, chat, events)
    assert reply["error"]["code"] == {
        "midstream_exception": EXCEPTIONS[provider],
        "stall": "provider_timeout",
    }.get(fault, BROKEN)
    assert reply["text"].split() == numbered_words(words).split()
    assert reply["usage"]["input_tokens"] > 0
    assert reply["usage"]["output_tokens"] > 0
    assert reply["usage"]["estimated"]
    assert len(fake.calls) == 1  # after the first token nothing is tried again

    more = await continued(client, reply)
    assert reply["text"] + text_of(more) == numbered_words(30)
    whole = more[-1].data["message"]
    assert whole["text"] == numbered_words(30)
    assert whole["status"] == "complete"
    assert whole["usage"]["input_tokens"] > reply["usage"]["input_tokens"]


@pytest.mark.parametrize("fault", ["throttle_first", "unavailable"])
async def test_a_refusal_is_tried_again_and_nobody_notices(
    client: Client, chat: str, fake: Any, *, fault: Fault
) -> None:
    fake.plan.faults = [fault]

    events = await client.ask(chat, "Say 30 words")

    assert [call.outcome for call in fake.calls] == ["refused", "complete"]
    assert text_of(events) == numbered_words(30)
    message = events[-1].data["message"]
    assert message["status"] == "complete"
    assert message["usage"]["output_tokens"] == 30
    assert not message["usage"]["estimated"]


@pytest.mark.parametrize("fault", ["midstream_exception", "bad_crc", "cut"])
async def test_a_break_before_the_first_token_is_tried_again(
    client: Client, chat: str, fake: Any, *, fault: Fault
) -> None:
    fake.plan.update({"faults": [fault], "at_chunk": 0})

    events = await client.ask(chat, "Say 30 words")

    assert len(fake.calls) == 2
    assert text_of(events) == numbered_words(30)
    assert events[-1].data["message"]["status"] == "complete"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("throttle_first", "provider_throttled"),
        ("unavailable", "provider_unavailable"),
    ],
)
async def test_what_does_not_pass_is_told_and_can_be_continued(
    client: Client, chat: str, fake: Any, *, fault: Fault, code: str
) -> None:
    fake.plan.update({"faults": [fault] * 3, "retry_after": "0.05"})

    events = await client.ask(chat, "Say 30 words")

    reply = await failed_reply(client, chat, events)
    assert reply["error"]["code"] == code
    assert reply["text"] == ""
    assert reply["usage"] is not None
    assert len(fake.calls) == 3
    assert text_of(await continued(client, reply)) == numbered_words(30)
