"""Answers that an API key has kept, which equal calls get again."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.client import Answer
from tests.conftest import Server
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.faults import Fault, numbered_words
from tests.fakes.openai import FakeOpenAI
from tests.integration.gateway import Gateway
from tests.integration.providers import variables_for
from tests.integration.test_gateway_accounting import EXACT, PRICED, booked, limit
from tests.integration.test_statements import counted
from tests.integration.wire import PATHS, Api, body, ends_well, text_of

WAYS: list[tuple[str, Api]] = [
    ("openai", "chat"),
    ("openai", "responses"),
    ("openai", "messages"),
    ("anthropic", "messages"),
]
"""A provider, and how it is asked: the first and the last pass."""

both_ways = pytest.mark.parametrize("streamed", [True, False])


@pytest.fixture
async def server(
    serve: Any, fake_openai: FakeOpenAI, fake_anthropic: FakeAnthropic, tmp_path: Path
) -> AsyncIterator[Server]:
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(PRICED)
    variables = variables_for("openai", fake_openai)
    variables |= variables_for("anthropic", fake_anthropic)
    variables["PROVIDER_RETRIES"] = "0"
    async with serve(**variables, MODEL_CATALOGUE=str(catalogue)) as server:
        yield server


@pytest.fixture
async def gateway(server: Server, fake_openai: FakeOpenAI) -> Gateway:
    """Its key has answers kept for a minute."""
    gateway = await Gateway.opened(server, "openai", fake_openai)
    gateway.key = (await gateway.new_key(cache_seconds=60))["key"]
    return gateway


async def ask(
    gateway: Gateway, api: Api = "chat", *, key: str = "", **fields: Any
) -> Answer:
    asked = body(api, gateway.model, "Say 30 words", **fields)
    return await gateway.with_key(key).post(PATHS[api], json=asked)


def hits(*answers: Answer) -> list[bool]:
    assert {answer.status for answer in answers} == {200}
    return [answer.headers.get("X-Workroom-Cache") == "hit" for answer in answers]


async def logged(gateway: Gateway, number: int) -> list[dict[str, Any]]:
    """The calls that were logged, in their order, as the desk reads them."""
    admin = await gateway.server.admin("logs")
    async with asyncio.timeout(20):
        while True:
            rows = (await admin.get("/admin/message-logs")).json["items"]
            if len(rows) >= number:
                break
            await asyncio.sleep(0.01)
    paths = [f"/admin/message-logs/{row['id']}" for row in reversed(rows)]
    return [(await admin.get(path)).json for path in paths]


@both_ways
@pytest.mark.parametrize(("provider", "api"), WAYS)
async def test_an_equal_call_gets_the_answer_of_before(
    gateway: Gateway,
    fake_anthropic: FakeAnthropic,
    provider: str,
    api: Api,
    *,
    streamed: bool,
) -> None:
    if provider == "anthropic":
        gateway.provider, gateway.fake = provider, fake_anthropic

    first = await ask(gateway, api, stream=streamed)
    # Neither blanks nor the order of fields make it another.
    turned = dict(
        reversed(body(api, gateway.model, "Say 30 words", stream=streamed).items())
    )
    second = await gateway.with_key().post(PATHS[api], json=turned)

    assert hits(first, second) == [False, True]
    assert second.body == first.body
    for name in ("Content-Type", "Cache-Control"):
        assert second.headers.get(name) == first.headers.get(name)
    if streamed:
        assert ends_well(api, second.body)
        assert text_of(api, second.body).split() == numbered_words(30).split()
    assert len(gateway.fake.calls) == 1


async def test_the_clients_read_what_was_kept(gateway: Gateway) -> None:
    async with gateway.openai() as client:
        texts = []
        for _ in range(2):
            stream = await client.chat.completions.create(
                model=gateway.model,
                messages=[{"role": "user", "content": "Say 30 words"}],
                stream=True,
            )
            async with stream:
                deltas = [c.choices[0].delta.content async for c in stream if c.choices]
            texts.append("".join(delta or "" for delta in deltas))

    assert texts == [numbered_words(30)] * 2
    assert len(gateway.fake.calls) == 1


async def test_calls_of_tools_are_kept(gateway: Gateway) -> None:
    gateway.fake.plan.tool = "get_weather"
    function = {"name": "get_weather", "parameters": {"type": "object"}}
    tools = [{"type": "function", "function": function}]

    first = await ask(gateway, tools=tools)
    second = await ask(gateway, tools=tools)

    assert hits(first, second) == [False, True]
    [call] = second.json["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"


@both_ways
async def test_a_hit_costs_nothing_and_is_logged(
    gateway: Gateway, *, streamed: bool
) -> None:
    """TRUST M2."""
    for _ in range(3):
        assert (await ask(gateway, stream=streamed)).status == 200

    assert await booked(gateway) == EXACT
    first, *others = await logged(gateway, 3)
    assert first["status"] == "complete"
    assert [row["status"] for row in others] == ["cached"] * 2
    for row in others:
        assert (row["input_tokens"], row["output_tokens"], row["credits"]) == (0, 0, 0)
        for name in ("kind", "model", "username", "messages"):
            assert row[name] == first[name]
    assert first["messages"][-1]["content"] == numbered_words(30)


async def test_a_hit_counts_for_no_limit(gateway: Gateway) -> None:
    limits = {"requests_per_minute": 1, "tokens_per_minute": 1}
    key = (await gateway.new_key(cache_seconds=60, **limits))["key"]
    await limit(gateway, daily_conversations=1)

    answers = [await ask(gateway, key=key) for _ in range(3)]
    other = await ask(gateway, key=key, temperature=1)

    assert hits(*answers) == [False, True, True]
    assert other.status == 429


async def test_other_calls_go_to_the_model(gateway: Gateway) -> None:
    other = (await gateway.new_key(cache_seconds=60))["key"]

    answers = [
        await ask(gateway),
        await ask(gateway, key=other),
        await ask(gateway, stream=True),
        await ask(gateway, temperature=0.5),
        await ask(gateway, "messages"),
        await ask(gateway, "responses"),
    ]

    assert hits(*answers) == [False] * len(answers)
    assert len(gateway.fake.calls) == len(answers)


async def test_a_body_that_two_formats_can_read_has_an_answer_in_each(
    gateway: Gateway,
) -> None:
    asked = body("messages", gateway.model, "Say 30 words")
    client = gateway.with_key()

    answers = [
        await client.post(PATHS[api], json=asked) for api in ("messages", "chat")
    ]

    assert hits(*answers) == [False, False]
    assert [answer.json.get("object") for answer in answers] == [
        None,
        "chat.completion",
    ]


async def test_nothing_is_kept_by_default_nor_for_who_is_logged_in(
    gateway: Gateway,
) -> None:
    plain = (await gateway.new_key())["key"]
    asked = body("chat", gateway.model, "Say 30 words")

    answers = [await ask(gateway, key=plain) for _ in range(2)]
    answers += [await gateway.owner.post(PATHS["chat"], json=asked) for _ in range(2)]

    assert hits(*answers) == [False] * 4
    assert len(gateway.fake.calls) == 4


async def test_an_answer_is_given_again_until_its_time_is_over(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    answers = gateway.server.runtime.gateway._answers
    monkeypatch.setattr(answers, "_clock", lambda: now)

    first = await ask(gateway)
    now += 59
    second = await ask(gateway)
    now += 1
    third, fourth = await ask(gateway), await ask(gateway)

    assert hits(first, second, third, fourth) == [False, True, False, True]
    assert len(gateway.fake.calls) == 2


@pytest.mark.parametrize("fault", ["cut", "midstream_exception", "missing_end"])
@pytest.mark.parametrize("api", ["chat", "messages"])
async def test_a_stream_that_failed_is_not_kept(
    gateway: Gateway, api: Api, fault: Fault
) -> None:
    gateway.fake.plan.faults = [fault]

    first = await ask(gateway, api, stream=True)
    second = await ask(gateway, api, stream=True)

    assert hits(first, second) == [False, False]
    assert not ends_well(api, first.body)
    assert ends_well(api, second.body)


async def test_an_error_is_not_kept(gateway: Gateway) -> None:
    gateway.fake.plan.faults = ["unavailable"]

    first, second = await ask(gateway), await ask(gateway)

    assert first.status == 503
    assert hits(second) == [False]


async def test_a_stream_whose_client_left_is_not_kept(gateway: Gateway) -> None:
    gateway.fake.plan.update({"at_chunk": 3, "faults": ["stall"]})
    asked = body("chat", gateway.model, "Say 30 words", stream=True)
    left = await gateway.with_key()._open("POST", PATHS["chat"], json=asked)
    await left.content.readline()
    left.close()
    await gateway.fake.calls[0].ended.wait()

    assert hits(await ask(gateway, stream=True)) == [False]


async def test_what_is_changed_of_a_key_counts_at_once(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    answers = gateway.server.runtime.gateway._answers
    monkeypatch.setattr(answers, "_clock", lambda: now)
    made = await gateway.new_key(cache_seconds=60)
    path, key = f"/apikeys/{made['id']}", made["key"]

    async def change(**fields: Any) -> None:
        assert (await gateway.owner.patch(path, json=fields)).status == 200

    assert hits(await ask(gateway, key=key)) == [False]
    await change(cache_seconds=None)
    assert hits(await ask(gateway, key=key)) == [False]
    await change(cache_seconds=3600)  # a change lets go of what was kept, too
    assert hits(await ask(gateway, key=key)) == [False]
    assert hits(await ask(gateway, key=key)) == [True]
    now += 60
    await change(cache_seconds=30)
    assert hits(await ask(gateway, key=key)) == [False]


async def test_who_may_not_call_the_model_gets_no_answer_of_it(
    gateway: Gateway,
) -> None:
    """TRUST K2: what a key may do is asked first, and a hit is no way around it."""
    made = await gateway.new_key(cache_seconds=60)
    path, old = f"/apikeys/{made['id']}", made["key"]
    assert hits(await ask(gateway, key=old)) == [False]

    await gateway.owner.patch(path, json={"models": ["guide/*"]})
    left_out = await ask(gateway, key=old)
    await gateway.owner.patch(path, json={"models": None, "scopes": ["models"]})
    unscoped = await ask(gateway, key=old)
    await gateway.owner.patch(path, json={"scopes": ["chat"]})
    new = (await gateway.owner.post(f"{path}/rotate")).json["key"]
    rotated, renewed = await ask(gateway, key=old), await ask(gateway, key=new)
    await gateway.owner.delete(path)
    revoked = await ask(gateway, key=new)

    assert (left_out.status, left_out.json["error"]["code"]) == (
        403,
        "model_not_allowed",
    )
    assert unscoped.status == 403
    assert rotated.status == revoked.status == 401
    assert hits(renewed) == [False]


async def test_a_plan_that_leaves_the_model_out_holds(gateway: Gateway) -> None:
    """TRUST K2."""
    assert hits(await ask(gateway)) == [False]
    user = (await gateway.owner.get("/users/me")).json["id"]
    admin = await gateway.server.admin("plans")
    await admin.put(f"/admin/users/{user}/limits", json={"models": ["guide/*"]})

    assert (await ask(gateway)).status == 403


async def test_a_call_does_not_wait_for_an_equal_one(gateway: Gateway) -> None:
    gateway.fake.plan.update({"at_chunk": 3, "faults": ["stall"]})
    asked = body("chat", gateway.model, "Say 30 words", stream=True)
    stalled = await gateway.with_key()._open("POST", PATHS["chat"], json=asked)
    await stalled.content.readline()

    second, third = await ask(gateway, stream=True), await ask(gateway, stream=True)
    stalled.close()

    assert hits(second, third) == [False, True]
    assert len(gateway.fake.calls) == 2


async def test_a_hit_costs_no_statement(gateway: Gateway) -> None:
    await ask(gateway)

    with counted(gateway.server) as statements:
        answer = await ask(gateway)

    assert hits(answer) == [True]
    assert statements == []
