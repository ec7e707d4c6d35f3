"""Clients that leave at any moment: what was asked of a provider is booked."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import func, select
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.models import MessageLog
from tests import conftest
from tests.conftest import Server, ServerFactory
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.openai import EMBEDDER, FakeOpenAI
from tests.integration.gateway import Gateway
from tests.integration.providers import variables_for
from tests.integration.test_gateway_accounting import PRICED, booked, logged
from tests.integration.test_gateway_asides import CATALOGUE, EMBEDDINGS
from tests.integration.test_gateway_revocation import revoke
from tests.integration.wire import PATHS, Api, body

STEPS = 120
"""Of the event loop, in which a call that nobody leaves has long been answered."""


@pytest.fixture
def catalogue(tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "catalogue.toml"
    file.write_text(PRICED + CATALOGUE)
    return {"MODEL_CATALOGUE": str(file)}


@pytest.fixture
async def server(
    serve: ServerFactory,
    fake_openai: FakeOpenAI,
    fake_anthropic: FakeAnthropic,
    catalogue: dict[str, str],
) -> AsyncIterator[Server]:
    variables = variables_for("openai", fake_openai)
    variables |= variables_for("anthropic", fake_anthropic)
    async with serve(**variables, **catalogue) as server:
        yield server


@pytest.fixture
async def gateway(server: Server, fake_openai: FakeOpenAI) -> Gateway:
    return await Gateway.opened(server, "openai", fake_openai)


def request(gateway: Gateway, path: str, asked: dict[str, Any]) -> bytes:
    content = json.dumps(asked)
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
        f"{gateway.key}\r\nContent-Length: {len(content)}\r\n\r\n{content}"
    ).encode()


async def sent(gateway: Gateway, data: bytes) -> asyncio.StreamWriter:
    """The connection that this went out by, to be closed."""
    address = urlsplit(gateway.server.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(data)
    return writer


async def rows(gateway: Gateway) -> int:
    async with gateway.server.runtime.database.unit_of_work(read_only=True) as session:
        return await session.scalar(select(func.count(MessageLog.id))) or 0


def reserved(gateway: Gateway) -> int:
    purses = gateway.server.runtime.credits._purses.users
    return sum(purse.reserved for purse in purses.values())


async def all_is_logged(gateway: Gateway) -> None:
    """Wait until each call of the provider is in the log, and none is under way."""
    calls = gateway.fake.calls
    async with asyncio.timeout(20):
        while reserved(gateway) or await rows(gateway) < len(calls):  # noqa: ASYNC110 - nobody tells of rows
            await asyncio.sleep(0.01)


async def test_whenever_a_client_leaves_each_call_of_a_provider_is_logged_and_booked(
    gateway: Gateway,
) -> None:
    """TRUST M1, M2, F5: nothing stays reserved.

    Of every second call the key is to be looked up first.
    """
    gateway.fake.plan.chunk_delay = 0.001
    asked = body("chat", gateway.model, "Say 30 words", stream=True)
    data = request(gateway, PATHS["chat"], asked)
    principals = gateway.server.runtime.principals
    principal = await principals.of_key(gateway.key, ip="127.0.0.1")
    first = await gateway.with_key().post(PATHS["chat"], json=asked)
    assert first.status == 200  # so the provider's models are known from now on

    for steps in range(STEPS):
        writer = await sent(gateway, data)
        if steps % 2:
            principals.reread(principal.session_id)
        for _ in range(steps):
            await asyncio.sleep(0)
        writer.close()
    for call in gateway.fake.calls:
        await asyncio.wait_for(call.ended.wait(), 20)
    last = await gateway.with_key().post(PATHS["chat"], json=asked)

    assert last.status == 200
    await all_is_logged(gateway)
    outcomes = {call.outcome for call in gateway.fake.calls}
    assert outcomes == {"dropped", "complete"}
    # On a busy machine some may leave while we connect: in the log, and not booked.
    assert (await booked(gateway))["requests"] == len(gateway.fake.calls)


@pytest.mark.parametrize("come", ["head", "half of the body"])
async def test_who_leaves_before_all_is_said_has_made_no_call(
    gateway: Gateway, come: str
) -> None:
    """TRUST M2."""
    asked = body("chat", gateway.model, "Say 30 words")
    data = request(gateway, PATHS["chat"], asked)
    _, _, content = data.partition(b"\r\n\r\n")
    left_out = len(content) if come == "head" else len(content) // 2

    (await sent(gateway, data[:-left_out])).close()
    answer = await gateway.with_key().post(PATHS["chat"], json=asked)

    assert answer.status == 200
    assert (await logged(gateway))["status"] == "complete"
    assert (await booked(gateway))["requests"] == len(gateway.fake.calls) == 1


async def test_behind_another_server_calls_are_answered_too(
    serve: ServerFactory, fake_openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by `uvicorn main:app`."""
    monkeypatch.setattr(conftest, "Connection", HttpToolsProtocol)
    async with serve(**variables_for("openai", fake_openai)) as server:
        gateway = await Gateway.opened(server, "openai", fake_openai)
        for stream in (False, True):
            asked = body("chat", gateway.model, "Say 3 words", stream=stream)

            answer = await gateway.with_key().post(PATHS["chat"], json=asked)

            assert answer.status == 200


by_each_way = pytest.mark.parametrize(
    ("api", "streamed"), [("chat", True), ("messages", False)]
)
"""The first passes, the other is translated."""


@by_each_way
async def test_who_leaves_while_a_refused_call_waits_to_be_made_again_pays_nothing(
    gateway: Gateway, api: Api, *, streamed: bool
) -> None:
    """TRUST M2: the provider has refused it, and is not asked any more."""
    gateway.fake.plan.update({"faults": ["unavailable"] * 9, "retry_after": "15"})
    asked = body(api, gateway.model, "Say 30 words", stream=streamed)
    writer = await sent(gateway, request(gateway, PATHS[api], asked))
    await asyncio.wait_for(gateway.fake.called.wait(), 20)
    await gateway.fake.calls[0].ended.wait()

    writer.close()

    log = await logged(gateway)
    assert (log["status"], log["input_tokens"], log["credits"]) == ("stopped", 0, 0)
    assert await booked(gateway) == {}
    assert reserved(gateway) == 0
    assert len(gateway.fake.calls) == 1


class Silent:
    """A server that takes connections, and says nothing: no TLS comes about."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_server(self._take, "127.0.0.1", 0)

    async def _take(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read(1)
        self.asked.set()
        await reader.read()
        writer.close()


@by_each_way
async def test_who_leaves_before_a_provider_is_reached_pays_nothing(
    serve: ServerFactory, catalogue: dict[str, str], api: Api, *, streamed: bool
) -> None:
    """TRUST M2."""
    silent = Silent()
    async with (
        await silent.serve() as upstream,
        serve(
            OPENAI_BASE_URL=f"https://127.0.0.1:{upstream.sockets[0].getsockname()[1]}",
            OPENAI_MODELS="fake-small",
            **catalogue,
        ) as server,
    ):
        gateway = await Gateway.opened(server, "openai", FakeOpenAI())
        asked = body(api, gateway.model, "Say 30 words", stream=streamed)
        writer = await sent(gateway, request(gateway, PATHS[api], asked))
        await asyncio.wait_for(silent.asked.wait(), 20)

        writer.close()

        assert (await logged(gateway))["status"] == "stopped"
        assert await booked(gateway) == {}
        assert reserved(gateway) == 0


async def test_whose_key_is_revoked_before_a_provider_takes_the_call_pays_nothing(
    gateway: Gateway,
) -> None:
    """TRUST M2, T4."""
    gateway.fake.plan.update({"faults": ["unavailable"] * 9, "retry_after": "15"})
    asked = body("chat", gateway.model, "Say 30 words", stream=True)
    calling = asyncio.create_task(gateway.with_key().post(PATHS["chat"], json=asked))
    await asyncio.wait_for(gateway.fake.called.wait(), 20)
    await gateway.fake.calls[0].ended.wait()

    await revoke(gateway)

    assert (await calling).status == 401
    assert (await logged(gateway))["status"] == "stopped"
    assert await booked(gateway) == {}


async def test_who_leaves_embeddings_ends_the_calls_and_pays_for_what_was_asked(
    gateway: Gateway,
) -> None:
    """TRUST M2: by the provider's figures for what was answered."""
    gateway.fake.plan.chunk_delay = 60
    asked = {"model": EMBEDDINGS, "input": ["one " * 100, "two " * 100]}
    writer = await sent(gateway, request(gateway, "/v1/embeddings", asked))
    await asyncio.wait_for(gateway.fake.called.wait(), 20)

    writer.close()

    [call] = gateway.fake.calls
    await asyncio.wait_for(call.ended.wait(), 20)
    log = await logged(gateway)
    sums = await booked(gateway)
    assert call.outcome == "dropped"
    assert call.body["model"] == EMBEDDER
    assert (log["status"], log["input_tokens"]) == ("stopped", 200)
    assert sums == {
        "requests": 1,
        "estimated": 1,
        "input_tokens": 200,
        "credits": log["credits"],
    }
    assert log["credits"] == 200 * 10


async def test_who_leaves_a_count_of_tokens_ends_it(
    gateway: Gateway, fake_anthropic: FakeAnthropic
) -> None:
    fake_anthropic.plan.chunk_delay = 60
    asked = body("messages", "anthropic/claude-opus-5", "Hello")
    path = f"{PATHS['messages']}/count_tokens"
    writer = await sent(gateway, request(gateway, path, asked))
    await asyncio.wait_for(fake_anthropic.called.wait(), 20)

    writer.close()

    [call] = fake_anthropic.calls
    await asyncio.wait_for(call.ended.wait(), 20)
    assert call.outcome == "dropped"
    assert await booked(gateway) == {}
