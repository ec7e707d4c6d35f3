"""What calls by the gateway cost, count and leave behind, passing and translated."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from sqlalchemy import func, select

from app.models import UsageDay
from tests.conftest import Server
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.faults import Fault, numbered_words
from tests.fakes.openai import FakeOpenAI
from tests.integration.gateway import Gateway
from tests.integration.providers import variables_for
from tests.integration.test_billing import balance_is_the_ledgers
from tests.integration.test_statements import counted
from tests.integration.wire import PATHS, Api, body, ends_well, error_of

PRICED = """
["openai/fake-small"]
context_window = 100000
max_output_tokens = 4096
capabilities = ["text", "tools"]
prices = { input = 10, output = 100 }

["anthropic/claude-opus-5"]
context_window = 100000
max_output_tokens = 4096
capabilities = ["text", "tools"]
prices = { input = 10, output = 100 }

["openai/fake-large"]
context_window = 100000
max_output_tokens = 1000
prices = { input = 0, output = 1 }
"""
WAYS: list[tuple[str, Api]] = [
    ("openai", "chat"),
    ("anthropic", "messages"),
    ("openai", "responses"),
    ("anthropic", "chat"),
]
"""A provider, and how it is asked: the first two pass, the others are translated."""


@pytest.fixture
async def server(
    serve: Any, fake_openai: FakeOpenAI, fake_anthropic: FakeAnthropic, tmp_path: Path
) -> AsyncIterator[Server]:
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(PRICED)
    variables = variables_for("openai", fake_openai)
    variables |= variables_for("anthropic", fake_anthropic)
    async with serve(**variables, MODEL_CATALOGUE=str(catalogue)) as server:
        yield server


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> tuple[str, Api]:
    found: tuple[str, Api] = request.param
    return found


@pytest.fixture
def api(way: tuple[str, Api]) -> Api:
    return way[1]


@pytest.fixture
async def gateway(
    server: Server,
    fake_openai: FakeOpenAI,
    fake_anthropic: FakeAnthropic,
    way: tuple[str, Api],
) -> Gateway:
    fakes = {"openai": fake_openai, "anthropic": fake_anthropic}
    return await Gateway.opened(server, way[0], fakes[way[0]])


@pytest.fixture
async def priced(server: Server, fake_openai: FakeOpenAI) -> Gateway:
    """Where the way makes no difference."""
    return await Gateway.opened(server, "openai", fake_openai)


async def booked(gateway: Gateway) -> dict[str, int]:
    """What all calls came to; nothing where none was booked."""
    runtime = gateway.server.runtime
    await runtime.credits.flush()
    names = ("requests", "estimated", "input_tokens", "output_tokens", "credits")
    sums = [func.sum(getattr(UsageDay, name)).label(name) for name in names]
    async with runtime.database.unit_of_work(read_only=True) as session:
        statement = select(*sums).where(UsageDay.kind == "gateway")
        row = (await session.execute(statement)).one()._asdict()
    await balance_is_the_ledgers(runtime.database)
    return {name: int(total) for name, total in row.items() if total}


async def logged(gateway: Gateway) -> dict[str, Any]:
    """The one call that was logged, with its text, as the desk reads it."""
    admin = await gateway.server.admin("logs")
    async with asyncio.timeout(20):
        while True:
            if rows := (await admin.get("/admin/message-logs")).json["items"]:
                break
            await asyncio.sleep(0.01)
    [row] = rows
    return dict((await admin.get(f"/admin/message-logs/{row['id']}")).json)


async def limit(gateway: Gateway, **limits: int) -> None:
    admin = await gateway.server.admin("plans", "credits")
    user = (await gateway.owner.get("/users/me")).json["id"]
    path = f"/admin/users/{user}/limits"
    assert (await admin.request("PUT", path, json=limits)).status == 204


EXACT = {
    "requests": 1,
    "input_tokens": 25,
    "output_tokens": 30,
    "credits": 25 * 10 + 30 * 100,
}


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_call_is_booked_by_the_providers_figures(
    gateway: Gateway, api: Api, *, streamed: bool
) -> None:
    """TRUST M2: also where the client did not ask for them."""
    asked = body(api, gateway.model, "Say 30 words", stream=streamed)

    answer = await gateway.with_key().post(PATHS[api], json=asked)

    assert answer.status == 200
    if streamed:
        assert ends_well(api, answer.body)
    if streamed and api == "chat":
        assert b"completion_tokens" not in answer.body
    assert await booked(gateway) == EXACT


async def test_an_explicit_zero_stays_zero(gateway: Gateway, api: Api) -> None:
    """TRUST M2."""
    gateway.fake.plan.input_tokens = 0
    asked = body(api, gateway.model, "Say 0 words", stream=True)

    answer = await gateway.with_key().post(PATHS[api], json=asked)

    assert ends_well(api, answer.body)
    assert await booked(gateway) == {"requests": 1}


@pytest.mark.parametrize("streamed", [True, False])
async def test_missing_figures_become_an_estimate_that_is_marked(
    gateway: Gateway, api: Api, *, streamed: bool
) -> None:
    """TRUST M2."""
    gateway.fake.plan.tells_usage = False
    asked = body(api, gateway.model, "Say 30 words", stream=streamed)

    assert (await gateway.with_key().post(PATHS[api], json=asked)).status == 200

    sums = await booked(gateway)
    assert (sums["requests"], sums["estimated"]) == (1, 1)
    assert sums["input_tokens"] > 0
    assert 30 <= sums["output_tokens"] <= 120


async def test_a_client_that_leaves_pays_for_what_came(
    gateway: Gateway, api: Api
) -> None:
    """TRUST M2; the provider need not go on."""
    gateway.fake.plan.chunk_delay = 0.01
    asked = body(api, gateway.model, "Say 500 words", stream=True)

    async with gateway.with_key().stream("POST", PATHS[api], json=asked) as stream:
        seen = b""
        while b"w0003" not in seen:
            seen += await stream.response.content.readany()
    call = gateway.fake.calls[0]
    await asyncio.wait_for(call.ended.wait(), 20)
    log = await logged(gateway)

    assert call.outcome == "dropped"
    assert log["status"] == "stopped"
    assert log["messages"][-1]["content"].startswith("w0001 w0002 w0003")
    sums = await booked(gateway)
    assert (sums["requests"], sums["estimated"]) == (1, 1)
    assert 3 <= sums["output_tokens"] < 500
    assert sums["credits"] == log["credits"]
    assert gateway.server.runtime.principals._followers == {}


@pytest.mark.parametrize("streamed", [True, False])
async def test_who_leaves_before_the_answer_ends_the_call_and_pays_for_what_was_asked(
    gateway: Gateway, api: Api, *, streamed: bool
) -> None:
    """TRUST M1, M2: nobody waits for it, and what it costs nobody has told."""
    gateway.fake.plan.chunk_delay = 60
    asked = json.dumps(body(api, gateway.model, "Say 5 words", stream=streamed))
    address = urlsplit(gateway.server.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(
        f"POST {PATHS[api]} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
        f"{gateway.key}\r\nContent-Length: {len(asked)}\r\n\r\n{asked}".encode()
    )
    await asyncio.wait_for(gateway.fake.called.wait(), 20)

    writer.close()

    [call] = gateway.fake.calls
    await asyncio.wait_for(call.ended.wait(), 20)
    log = await logged(gateway)
    assert call.outcome == "dropped"
    assert log["status"] == "stopped"
    sums = await booked(gateway)
    assert (sums["requests"], sums["estimated"]) == (1, 1)
    assert (sums["input_tokens"], sums["credits"]) == (
        log["input_tokens"],
        log["credits"],
    )
    assert sums["credits"] > 0


async def test_the_log_holds_the_last_question_and_the_answer(
    gateway: Gateway, api: Api
) -> None:
    asked = body(api, gateway.model, "Say 3 words")
    turns = asked["input" if api == "responses" else "messages"]
    turns[:0] = [
        {"role": "user", "content": "An old question"},
        {"role": "assistant", "content": "An old answer"},
    ]

    assert (await gateway.with_key().post(PATHS[api], json=asked)).status == 200

    log = await logged(gateway)
    facts = (log["kind"], log["model"], log["status"], log["username"])
    assert facts == ("gateway", gateway.model, "complete", "ada")
    assert (log["input_tokens"], log["output_tokens"]) == (25, 3)
    assert log["messages"] == [
        {"role": "user", "content": "Say 3 words"},
        {"role": "assistant", "content": numbered_words(3)},
    ]


async def test_a_stream_that_broke_off_is_logged_as_far_as_it_came(
    gateway: Gateway, api: Api
) -> None:
    """TRUST F3."""
    gateway.fake.plan.faults = ["cut"]
    asked = body(api, gateway.model, "Say 30 words", stream=True)

    await gateway.with_key().post(PATHS[api], json=asked)

    log = await logged(gateway)
    assert log["status"] == "error"
    assert log["messages"][-1]["content"].split() == numbered_words(5).split()


@pytest.mark.parametrize("fault", ["throttle_first", "unavailable"])
async def test_a_call_that_the_provider_refuses_costs_nothing(
    gateway: Gateway, api: Api, fault: Fault
) -> None:
    """TRUST M2."""
    gateway.fake.plan.faults = [fault] * 9
    asked = body(api, gateway.model, "Say 30 words", stream=True)

    answer = await gateway.with_key().post(PATHS[api], json=asked)

    assert answer.status == 503
    assert await booked(gateway) == {}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("fault", ["unavailable", "cut"])
async def test_what_is_tried_again_is_paid_once(
    gateway: Gateway, api: Api, fault: Fault, *, streamed: bool
) -> None:
    """TRUST M2, F3: what fails before its first token the client does not notice."""
    gateway.fake.plan.update({"faults": [fault], "at_chunk": 0})
    asked = body(api, gateway.model, "Say 30 words", stream=streamed)

    answer = await gateway.with_key().post(PATHS[api], json=asked)

    assert answer.status == 200
    assert numbered_words(30).split()[-1] in answer.body.decode()
    assert [call.outcome for call in gateway.fake.calls][1:] == ["complete"]
    assert await booked(gateway) == EXACT


def a_tools_turn(api: Api) -> dict[str, list[Any]]:
    """What a client sends when its tool has run."""
    question = {"role": "user", "content": "What is the weather?"}
    function = {"name": "get_weather", "arguments": "{}"}
    match api:
        case "chat":
            call = {"id": "call_1", "type": "function", "function": function}
            said = {"role": "assistant", "content": None, "tool_calls": [call]}
            result = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
            return {"messages": [question, said, result]}
        case "responses":
            call = {"type": "function_call", "call_id": "call_1", **function}
            told = {"type": "function_call_output", "call_id": "call_1"}
            return {"input": [question, call, {**told, "output": "rain"}]}
        case "messages":
            call = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {}}
            result = {"type": "tool_result", "tool_use_id": "t1", "content": "rain"}
            answered = {"role": "user", "content": [result]}
            said = {"role": "assistant", "content": [call]}
            return {"messages": [question, said, answered]}


async def test_a_day_counts_what_people_say_and_not_what_tools_tell(
    gateway: Gateway, api: Api
) -> None:
    await limit(gateway, daily_conversations=2)
    client = gateway.with_key()
    turn = body(api, gateway.model, "Say 3 words")
    tools = turn | a_tools_turn(api)
    name = "input" if api == "responses" else "messages"
    hidden = turn | {name: [*turn[name], {"role": "system", "content": "Be kind."}]}

    async def post(asked: dict[str, Any]) -> int:
        return (await client.post(PATHS[api], json=asked)).status

    assert [await post(turn), await post(tools), await post(turn)] == [200] * 3
    assert [await post(turn), await post(hidden), await post(tools)] == [429, 429, 200]
    answer = await client.post(PATHS[api], json=turn)
    assert 0 < int(answer.headers["Retry-After"]) <= 24 * 3600
    assert error_of(api, answer.json)["type"] == "rate_limit_error"


async def test_a_plan_has_a_pace(priced: Gateway) -> None:
    await limit(priced, requests_per_minute=2)
    asked = body("chat", priced.model, "Say 3 words")
    # Whatever key it goes by, and without one.
    clients = [
        priced.with_key(),
        priced.with_key((await priced.new_key())["key"]),
        priced.owner,
    ]

    statuses = [(await c.post(PATHS["chat"], json=asked)).status for c in clients]

    assert statuses == [200, 200, 429]


async def test_of_many_calls_at_once_exactly_the_affordable_are_admitted(
    priced: Gateway,
) -> None:
    """TRUST M1."""
    await limit(priced, monthly_credits=350)
    priced.fake.plan.update({"at_chunk": 1, "faults": ["stall"] * 10})
    asked = body("chat", "openai/fake-large", "Say 9 words", stream=True)
    asked["max_tokens"] = 100
    client = priced.with_key()

    async def try_one() -> aiohttp.ClientResponse:
        return await client._open("POST", PATHS["chat"], json=asked)

    answers = await asyncio.gather(*(try_one() for _ in range(10)))
    statuses = sorted(answer.status for answer in answers)
    refusals = [await answer.json() for answer in answers if answer.status == 402]
    for answer in answers:
        answer.close()
    for call in priced.fake.calls:
        await call.ended.wait()

    assert statuses == [200] * 3 + [402] * 7
    assert {error_of("chat", refusal)["code"] for refusal in refusals} == {
        "insufficient_quota"
    }
    assert len(priced.fake.calls) == 3


async def test_who_cannot_pay_hears_so_in_the_format_of_the_client(
    gateway: Gateway, api: Api
) -> None:
    await limit(gateway, monthly_credits=1000)
    asked = body(api, gateway.model, "Say 30 words")

    answer = await gateway.with_key().post(PATHS[api], json=asked)

    assert answer.status == 402
    kind = "billing_error" if api == "messages" else "insufficient_quota"
    assert error_of(api, answer.json)["type"] == kind
    assert gateway.fake.calls == []


async def test_a_warm_call_costs_no_statement(gateway: Gateway, api: Api) -> None:
    client = gateway.with_key()
    for streamed in (True, False):
        asked = body(api, gateway.model, "Say 3 words", stream=streamed)
        await client.post(PATHS[api], json=asked)

        with counted(gateway.server) as statements:
            answer = await client.post(PATHS[api], json=asked)

        assert answer.status == 200
        assert statements == []


async def test_usage_is_told_by_key_and_model(priced: Gateway) -> None:
    other = await priced.new_key()
    asked = body("chat", priced.model, "Say 3 words")
    for client in (priced.with_key(), priced.with_key(other["key"]), priced.owner):
        assert (await client.post(PATHS["chat"], json=asked)).status == 200
    await priced.server.runtime.credits.flush()

    params = {"group_by": "key,model"}
    found = (await priced.owner.get("/usage", params=params)).json["items"]

    assert len({item["key"] for item in found}) == 3
    assert {item["key"] for item in found} >= {other["id"], None}
    for item in found:
        figures = (item["model"], item["requests"], item["output_tokens"])
        assert figures == (priced.model, 1, 3)
