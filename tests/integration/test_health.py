"""What watches the server, and the page at the root."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from html import escape
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from tests.client import Answer
from tests.conftest import Server
from tests.fakes.openai import FakeOpenAI
from tests.integration.operations import send

Serve = Callable[..., AbstractAsyncContextManager[Server]]

DETAILS = {
    "status", "checks", "running_turns", "jobs", "memory_bytes", "disk_free_bytes",
    "models",
}  # fmt: skip
one_database = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


async def ask(server: Server, path: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await send(server.anonymous(), "GET", path, headers=named)


async def test_a_server_with_all_it_needs_is_live_and_ready(server: Server) -> None:
    live = await ask(server, "/health/live")
    ready = await ask(server, "/health/ready")

    assert (live.status, live.json) == (200, {"status": "ok"})
    assert ready.status == 200
    assert ready.json == {
        "status": "ok",
        "checks": {"database": "ok", "disk": "ok", "shutdown": "ok"},
    }


async def test_this_machine_itself_reads_the_details(server: Server) -> None:
    client = await server.client()
    chat = await client.chat()
    await client.ask(chat, "What is the guide?")

    answer = await ask(server, "/health")

    assert answer.status == 200
    assert answer.json.keys() == DETAILS
    assert answer.json["models"] == ["guide/manual"]
    assert answer.json["running_turns"] == 0
    assert sum(answer.json["jobs"].values()) >= 1
    assert answer.json["memory_bytes"] > 2**20


@one_database
async def test_a_server_that_goes_down_is_not_ready_but_live(server: Server) -> None:
    server.runtime.shutdown.begun = True

    ready = await ask(server, "/health/ready")
    whole = await ask(server, "/health")

    assert ready.status == whole.status == 503
    assert ready.json["status"] == whole.json["status"] == "unavailable"
    assert ready.json["checks"]["shutdown"] == "shutting down"
    assert (await ask(server, "/health/live")).status == 200


@one_database
async def test_a_database_that_is_gone_makes_the_server_not_ready(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    sessions = async_sessionmaker(nowhere)
    monkeypatch.setattr(server.runtime.database, "_reading", sessions)

    ready = await ask(server, "/health/ready")
    whole = await ask(server, "/health")

    assert ready.status == whole.status == 503
    assert "cannot be reached" in ready.json["checks"]["database"]
    assert whole.json["jobs"] == {}
    assert (await ask(server, "/health/live")).status == 200


@one_database
async def test_redis_is_watched_where_it_is_configured(
    serve: Serve, redis_url: str, tmp_path: Path
) -> None:
    async with serve(REDIS_URL=redis_url) as server:
        up = await ask(server, "/health/ready")
    async with serve(REDIS_URL=f"unix://{tmp_path}/nobody-listens") as server:
        down = await ask(server, "/health/ready")

    assert up.status == 200
    assert up.json["checks"]["redis"] == "ok"
    assert down.status == 503
    assert down.json["checks"]["redis"] == "REDIS_URL does not answer"
    assert str(tmp_path) not in down.body.decode()


@one_database
async def test_a_redis_that_says_nothing_does_not_hang_the_check(
    serve: Serve, fake_openai: FakeOpenAI
) -> None:
    """Any server will do that accepts and does not speak Redis."""
    address = fake_openai.base_url.removeprefix("http://").split("/")[0]
    async with serve(REDIS_URL=f"redis://{address}") as server:
        answer = await ask(server, "/health/ready")

    assert answer.status == 503
    assert answer.json["checks"]["redis"].startswith("REDIS_URL does not answer")


@one_database
async def test_with_a_token_nobody_else_reads_metrics_and_details(
    serve: Serve,
) -> None:
    async with serve(METRICS_TOKEN="let me see") as server:
        right = {"Authorization": "Bearer let me see"}
        assert (await ask(server, "/metrics", **right)).status == 200
        assert (await ask(server, "/health", **right)).json.keys() == DETAILS
        for wrong in ("", "Bearer let me", "Bearer", "let me see", "Basic let me see"):
            headers = {"Authorization": wrong}
            refused = await ask(server, "/metrics", **headers)
            assert refused.status == 404
            assert refused.json["code"] == "not_found"
            whole = await ask(server, "/health", **headers)
            assert whole.status == 200
            assert whole.json.keys() == {"status", "checks"}


@one_database
async def test_behind_a_proxy_on_this_machine_nobody_is_this_machine(
    serve: Serve,
) -> None:
    for trusted in ("", "127.0.0.1"):
        async with serve(TRUSTED_PROXIES=trusted) as server:
            for headers in (
                {"X_Forwarded_For": "203.0.113.7"},
                {"X_Forwarded_For": "127.0.0.1"},
                {"X_Real_IP": "203.0.113.7"},
                {"Forwarded": "for=203.0.113.7"},
            ):
                assert (await ask(server, "/metrics", **headers)).status == 404
                whole = await ask(server, "/health", **headers)
                assert whole.json.keys() == {"status", "checks"}


@one_database
async def test_metrics_tell_what_was_asked_by_route(server: Server) -> None:
    client = await server.client()
    chat = await client.chat()
    await client.get(f"/chats/{chat}")

    answer = await ask(server, "/metrics")

    assert answer.headers["Content-Type"].startswith("text/plain")
    text = answer.body.decode()
    assert (
        'workroom_http_requests_total{method="GET",route="/api/v1/chats/{chat_id}"'
        in text
    )
    assert "workroom_http_request_seconds_bucket" in text
    assert "workroom_cors_refused_total" in text
    assert chat not in text


@one_database
async def test_the_page_at_the_root_names_the_models_and_leads_on(
    serve: Serve, fake_openai: FakeOpenAI
) -> None:
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        models = (await (await server.client()).get("/models")).json["items"]
        page = await ask(server, "/")
        text = page.body.decode()
        links = [p for p in ("/docs", "/redoc", "/health") if f'href="{p}"' in text]
        found = [(await ask(server, path)).status for path in links]

    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    for model in models:
        if model["available"]:
            assert f"<code>{model['name']}</code>" in text
    assert links == ["/docs", "/redoc", "/health"]
    assert found == [200, 200, 200]


@one_database
async def test_the_page_shows_text_as_text(serve: Serve) -> None:
    name = """<script>alert("1")</script>&'{x}"""
    address = "https://a.example/?\"><img src=x onerror='x'>"

    async with serve(APP_NAME=name, PUBLIC_URL=address) as server:
        page = (await ask(server, "/")).body.decode()

    assert page.count(escape(name)) == 2
    assert "<script" not in page
    assert "<img" not in page
