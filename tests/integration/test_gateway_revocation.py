"""Whose key or login ends, hears no more of a model (TRUST T4)."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.client import Client
from tests.fakes.anthropic import FakeAnthropic
from tests.integration.gateway import Gateway
from tests.integration.providers import variables_for
from tests.integration.wire import PATHS, Api, body, ends_well, error_of

pytestmark = pytest.mark.parametrize("api", ["chat", "responses", "messages"])

PATIENCE = 60
"""Seconds that the provider may say nothing: the end is not its doing."""


@pytest.fixture
async def gateway(serve: Any, fake_anthropic: FakeAnthropic) -> AsyncIterator[Gateway]:
    variables = variables_for("anthropic", fake_anthropic)
    async with serve(**variables, PROVIDER_STALL_SECONDS=str(PATIENCE)) as server:
        yield await Gateway.opened(server, "anthropic", fake_anthropic)


async def revoke(gateway: Gateway) -> None:
    [key] = (await gateway.owner.get("/apikeys")).json["items"]
    assert (await gateway.owner.delete(f"/apikeys/{key['id']}")).status == 204


async def suspend(gateway: Gateway) -> None:
    admin = await gateway.server.admin("users")
    user = (await gateway.owner.get("/users/me")).json["id"]
    path = f"/admin/users/{user}/suspend"
    assert (await admin.post(path, json={"reason": "a test"})).status < 300


async def log_out(gateway: Gateway) -> None:
    tokens = {"refresh_token": gateway.owner.tokens["refresh_token"]}
    assert (await gateway.owner.post("/auth/logout", json=tokens)).status == 204


async def until_called(gateway: Gateway) -> None:
    while not gateway.fake.calls:  # noqa: ASYNC110 - the fake calls nobody
        await asyncio.sleep(0.01)


Ending = Callable[[Gateway], Awaitable[None]]
by_each_ending = pytest.mark.parametrize("end", [revoke, suspend, log_out])


def caller(gateway: Gateway, end: Ending) -> Client:
    return gateway.owner if end is log_out else gateway.with_key()


@by_each_ending
async def test_a_stream_ends_with_an_error_within_a_second(
    gateway: Gateway, api: Api, end: Ending
) -> None:
    """TRUST T4."""
    gateway.fake.plan.faults = ["stall"]
    asked = body(api, gateway.model, "Say 30 words", stream=True)

    async with caller(gateway, end).stream("POST", PATHS[api], json=asked) as stream:
        raw = b""
        while b"w0005" not in raw:
            raw += await stream.response.content.readany()
        await end(gateway)
        ended = time.monotonic()
        raw += await stream.response.read()

    assert time.monotonic() - ended < 1
    assert not ends_well(api, raw)
    await asyncio.wait_for(gateway.fake.calls[0].ended.wait(), 5)
    assert gateway.fake.calls[0].outcome == "dropped"


@by_each_ending
async def test_a_whole_answer_is_not_handed_out_any_more(
    gateway: Gateway, api: Api, end: Ending
) -> None:
    """TRUST T4."""
    gateway.fake.plan.update({"chunk_delay": 1, "words": 1})
    asked = body(api, gateway.model, "Hello", stream=False)

    posting = asyncio.create_task(caller(gateway, end).post(PATHS[api], json=asked))
    await until_called(gateway)
    await end(gateway)
    answer = await posting

    assert answer.status == 401
    assert b"w0001" not in answer.body


@by_each_ending
async def test_a_call_that_waits_for_its_first_token_is_refused_within_a_second(
    gateway: Gateway, api: Api, end: Ending
) -> None:
    """TRUST T4."""
    gateway.fake.plan.update({"faults": ["stall"], "at_chunk": 0})
    asked = body(api, gateway.model, "Say 30 words", stream=True)

    posting = asyncio.create_task(caller(gateway, end).post(PATHS[api], json=asked))
    await until_called(gateway)
    await end(gateway)
    answer = await asyncio.wait_for(posting, 1)

    assert answer.status == 401
    assert error_of(api, answer.json)["type"] == "authentication_error"
