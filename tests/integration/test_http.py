"""What every request meets on its way, over a real server.

The parts alone are tested in `tests/unit/middleware`.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from sqlalchemy import text

from app.core import logging
from app.core.config import ConfigError, LogSettings
from tests import mailbox
from tests.client import Answer
from tests.conftest import Server, SettingsFactory
from tests.integration.operations import send
from tests.integration.things import PASSWORD

Serve = Callable[..., AbstractAsyncContextManager[Server]]

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

PRODUCTION = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": "k3jH8sKq0vZ1xN7bT5yW2mR9cF4dG6pL",
    "ENCRYPTION_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    "ALLOWED_HOSTS": "127.0.0.1,workroom.example.com",
}
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
APP_PAGE = "https://app.example.com"


def assert_problem(answer: Answer, status: int, code: str) -> dict[str, Any]:
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    return problem


async def speak(server: Server, request: bytes) -> Answer:
    """Send bytes as they are, for what no client library would."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    status, *lines = head.decode().split("\r\n")
    headers = {k.title(): v for k, _, v in (line.partition(": ") for line in lines)}
    headers["X-Request-ID"] = headers.get("X-Request-Id", "")
    return Answer(int(status.split()[1]), headers, body)


def get(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode()


class Log:
    """What a server has written, line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def of(self, request_id: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("request_id") == request_id]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """Its path is to be given as LOG_FILE; lines do not wait for others."""
    monkeypatch.setattr(logging, "_MOMENT", 0)
    # Loggers keep the level of their first use, whichever test that was in.
    _forget_levels()
    yield Log(tmp_path / "log" / "workroom.log")
    _forget_levels()
    logging.configure(LogSettings.model_validate({"LOG_LEVEL": "ERROR"}))


def _forget_levels() -> None:
    for name, module in tuple(sys.modules.items()):
        if name.startswith("app.") and (logger := vars(module).get("_log")):
            vars(logger).pop("bind", None)


@pytest.fixture
async def logging_server(serve: Serve, log: Log) -> AsyncIterator[Server]:
    async with serve(LOG_FILE=str(log.path), LOG_LEVEL="INFO") as server:
        yield server


def add_route(app: FastAPI, path: str, endpoint: Callable[..., Any]) -> None:
    app.router.add_api_route(path, endpoint)


# Request ids, the log


async def test_every_answer_names_its_request(server: Server) -> None:
    async def fail() -> None:
        raise RuntimeError

    add_route(server.app, "/fail", fail)
    client = await server.client()
    answers = [
        await send(client, "GET", "/"),
        await send(client, "GET", "/health/live"),
        await client.get("/auth/me"),
        await server.anonymous().get("/auth/me"),
        await client.get(f"/chats/{uuid4()}"),
        await send(client, "GET", "/nothing"),
        await client.request("PUT", "/auth/me"),
        await client.post("/chats", json={"title": 1}),
        await client.post("/chats", data=BytesIO(bytes(3_000_000)), headers=JSON),
        await send(client, "GET", "/fail"),
        await speak(server, get("/", "Host: a b")),
        await client.request(
            "OPTIONS",
            "/chats",
            headers={"Origin": "null", "Access-Control-Request-Method": "GET"},
        ),
    ]

    assert [a.status for a in answers] == [
        200, 200, 200, 401, 404, 404, 405, 422, 413, 500, 400, 400,
    ]  # fmt: skip
    ids = [answer.headers["X-Request-ID"] for answer in answers]
    assert all(UUID(request_id).version == 7 for request_id in ids)
    assert len(set(ids)) == len(ids)
    for answer in answers:
        if answer.headers["Content-Type"] == "application/problem+json":
            assert answer.json["request_id"] == answer.headers["X-Request-ID"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_callers_id_leads_from_the_answer_to_the_log(
    logging_server: Server, log: Log
) -> None:
    given = {"X-Request-ID": "from-the-caller_1"}

    answer = await logging_server.anonymous().get("/auth/me?a=b", headers=given)

    problem = assert_problem(answer, 401, "unauthenticated")
    assert problem["request_id"] == "from-the-caller_1"
    (line,) = log.of("from-the-caller_1")
    assert line.keys() == {
        "event", "level", "logger", "timestamp", "request_id",
        "method", "path", "status", "ms", "client",
    }  # fmt: skip
    assert line["event"] == "request"
    assert line["method"] == "GET"
    assert line["path"] == "/api/v1/auth/me"
    assert line["status"] == 401
    assert line["client"] == "127.0.0.1"


async def test_what_a_request_logs_carries_its_id(
    logging_server: Server, log: Log
) -> None:
    answer = await logging_server.anonymous().request(
        "OPTIONS",
        "/chats",
        headers={
            "Origin": "https://other.example",
            "Access-Control-Request-Method": "POST",
        },
    )

    refused, access = log.of(answer.headers["X-Request-ID"])
    assert refused["event"] == "preflight refused"
    assert refused["level"] == "warning"
    assert refused["origin"] == "https://other.example"
    assert access["status"] == 400


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
async def test_the_log_holds_no_secret_and_nothing_that_people_wrote(
    serve: Serve, log: Log, level: str
) -> None:
    """D2. With a failing statement too: its parameters are what people wrote."""
    secret = "hunter2-the-secret"

    async def fail() -> None:
        async with server.runtime.database.unit_of_work() as session:
            await session.execute(
                text("INSERT INTO nothing VALUES (:text)"), {"text": secret}
            )

    async with serve(LOG_FILE=str(log.path), LOG_LEVEL=level) as server:
        add_route(server.app, "/fail", fail)
        client = server.anonymous()
        email = "ada@example.com"
        login = {"login": email, "password": secret}
        await client.post("/auth/register", json={"email": email, "password": secret})
        await client.post("/auth/login", json={**login, "password": secret + "x"})
        await client.post("/auth/login", data=json.dumps(login)[:-1], headers=JSON)
        await client.post("/auth/token", data={"username": email, "password": secret})
        await client.login(email, secret)
        chat = await client.chat(title=secret, system_prompt=secret)
        await client.ask(chat, f"{secret}?")
        await client.post(f"/chats/{chat}/messages", json={"content": [secret]})
        await client.get(f"/chats?access_token={secret}&cursor={secret}")
        await client.get("/chats", headers={"Authorization": f"Bearer {secret}"})
        await client.get(
            "/chats", headers={"Cookie": f"a={secret}", "X-API-Key": secret}
        )
        failed = await send(client, "GET", f"/fail?q={secret}")
        await client.post("/auth/refresh", json=client.tokens)
        tokens = set(client.tokens.values()) - {"bearer", 1800}

    assert failed.status == 500
    assert len(log.lines) > 10
    assert secret not in log.text
    assert not {token for token in tokens if token in log.text}
    assert email not in log.text


async def test_without_access_lines_errors_are_still_logged(
    serve: Serve, log: Log
) -> None:
    async def fail() -> None:
        raise RuntimeError("the cause")

    options = {"LOG_FILE": str(log.path), "LOG_LEVEL": "INFO"}
    async with serve(**options, ENABLE_LOGGING="false") as server:
        add_route(server.app, "/fail", fail)
        await server.client()
        await send(server.anonymous(), "GET", "/fail")

    logged = [line["event"] for line in log.lines if "request_id" in line]
    assert logged == ["unexpected error"]


async def test_timing_can_be_turned_off(serve: Serve) -> None:
    async with serve() as server:
        on = await server.anonymous().get("/health/live")
    async with serve(ENABLE_TIMING="false") as server:
        off = await server.anonymous().get("/health/live")

    assert on.headers["Server-Timing"].startswith("app;dur=")
    assert "Server-Timing" not in off.headers


# Errors


async def test_a_bug_is_a_500_whose_cause_only_the_log_has(
    logging_server: Server, log: Log
) -> None:
    async def fail() -> None:
        raise RuntimeError("the cause of it")

    add_route(logging_server.app, "/fail", fail)
    client = logging_server.anonymous()

    answer = await send(client, "GET", "/fail", headers={"Origin": APP_PAGE})

    problem = assert_problem(answer, 500, "internal_error")
    assert problem.keys() == {
        "type", "title", "status", "detail", "code", "request_id",
    }  # fmt: skip
    for trace in (b"cause", b"RuntimeError", b"Traceback", b".py"):
        assert trace not in answer.body
    assert answer.headers["Content-Security-Policy"]
    found = log.of(problem["request_id"])
    assert [line["event"] for line in found] == ["unexpected error", "request"]
    assert "RuntimeError: the cause of it" in found[0]["exception"]
    assert found[1]["status"] == 500


async def test_a_connection_outlives_a_bug(server: Server) -> None:
    async def fail() -> None:
        raise RuntimeError

    add_route(server.app, "/fail", fail)

    answer = await speak(
        server, b"GET /fail HTTP/1.1\r\nHost: a\r\n\r\n" + get("/", "Host: a")
    )

    assert answer.status == 500
    assert b"HTTP/1.1 200 OK" in answer.body


async def test_an_unknown_path_and_a_wrong_method_are_problems(
    server: Server,
) -> None:
    client = server.anonymous()

    missing = await send(client, "GET", "/api/v1/nothing?x=1")
    wrong = await client.request("PUT", "/auth/me")

    assert_problem(missing, 404, "not_found")
    assert_problem(wrong, 405, "method_not_allowed")
    assert wrong.headers["Allow"] == "GET"


async def test_all_wrong_fields_are_named_at_once_and_not_repeated(
    server: Server,
) -> None:
    answer = await server.anonymous().post(
        "/auth/register",
        json={"email": "not-an-address", "password": "s3cret", "username": "!"},
    )

    problem = assert_problem(answer, 422, "validation_failed")
    assert [e["path"] for e in problem["errors"]] == ["email", "password", "username"]
    assert all(e["message"] for e in problem["errors"])
    assert all(e.keys() == {"path", "message"} for e in problem["errors"])
    assert b"s3cret" not in answer.body
    assert b"not-an-address" not in answer.body


async def test_an_error_s_path_is_the_field_s_own(server: Server) -> None:
    client = await server.client()
    chat = await client.chat()
    wrong: list[tuple[Any, set[str]]] = [
        ({}, {"content"}),
        ({"content": 3}, {"content"}),
        ({"content": "  "}, {"content"}),
        ({"content": [{"type": "text"}]}, {"content.0.text"}),
        ({"content": [{"type": "text", "text": 1}]}, {"content.0.text"}),
        ({"content": [{"type": "nonsense"}]}, {"content.0.type"}),
        ({"content": [{"type": "image", "source": 1}]}, {"content.0.source"}),
        ({"content": [{"text": "a"}]}, {"content.0.type"}),
        ({"content": "a", "stream": "maybe"}, {"stream"}),
        ({"content": "a", "parent_id": "x"}, {"parent_id"}),
        ([], {"body"}),
        (None, {"body"}),
    ]

    for body, paths in wrong:
        answer = await client.post(f"/chats/{chat}/messages", json=body)
        problem = assert_problem(answer, 422, "validation_failed")
        assert {error["path"] for error in problem["errors"]} == paths, body


async def test_a_body_that_is_no_json_of_ours_is_a_problem(server: Server) -> None:
    wrong = [
        (422, b"{"),
        (422, b'{"login": "a", "password": "b",}'),
        (422, b""),
        (422, b"null"),
        (422, b'"text"'),
        (422, b'{"login": 1e999, "password": NaN}'),
        (400, b'{"login": "\xff\xfe"}'),
        (400, b"[" * 100_000),
        (400, b'{"login":' * 50_000),
        (400, b'{"login": ' + b"9" * 5000 + b"}"),
    ]
    codes = {400: "bad_request", 422: "validation_failed"}

    for status, body in wrong:
        answer = await server.anonymous().post("/auth/login", data=body, headers=JSON)
        assert_problem(answer, status, codes[status])


async def test_a_body_of_another_type_is_a_problem(server: Server) -> None:
    right = json.dumps({"login": "a", "password": "b"})
    client = server.anonymous()

    for kind in ("text/plain", "application/xml", "multipart/form-data", "x", "a/b;"):
        for path in ("/auth/login", "/auth/token"):
            sent_as = {"Content-Type": kind}
            answer = await client.post(path, data=right, headers=sent_as)
            assert answer.status in {400, 415, 422}, answer.body
            assert answer.headers["Content-Type"] == "application/problem+json"


async def test_a_mass_of_wrong_blocks_costs_little(server: Server) -> None:
    client = await server.client()
    chat = await client.chat()

    answer = await client.post(
        f"/chats/{chat}/messages", json={"content": [0] * 300_000}
    )

    problem = assert_problem(answer, 422, "validation_failed")
    assert len(problem["errors"]) < 5


# The size of a body


async def chunks(total: int) -> AsyncIterator[bytes]:
    for _ in range(total // 256):
        yield b"x" * 256
    yield b"x" * (total % 256)


async def test_a_body_over_the_limit_is_refused(serve: Serve) -> None:
    """F11."""
    async with serve(MAX_BODY_BYTES="4096") as server:
        client = await server.client()
        for path, kind in (
            ("/chats", JSON),
            ("/auth/login", JSON),
            ("/auth/token", FORM),
        ):
            said = await client.post(path, data=b"x" * 4097, headers=kind)
            assert_problem(said, 413, "payload_too_large")
            unsaid = await client.post(path, data=chunks(4097), headers=kind)
            assert_problem(unsaid, 413, "payload_too_large")


async def test_a_body_of_just_the_limit_is_read(serve: Serve) -> None:
    async with serve(MAX_BODY_BYTES="4096") as server:
        client = server.anonymous()
        body = json.dumps({"login": "a", "password": "b"}).ljust(4096).encode()

        said = await client.post("/auth/login", data=body, headers=JSON)
        unsaid = await client.post("/auth/login", data=chunks(4096), headers=JSON)

    assert_problem(said, 401, "invalid_credentials")
    assert_problem(unsaid, 422, "validation_failed")


# Hosts, proxies, https


async def test_a_hostile_host_gets_400_and_leads_nowhere(serve: Serve) -> None:
    """A3."""
    async with serve(**PRODUCTION) as server:
        for host in ("evil.example", "a b", "", "127.0.0.1@evil.example"):
            answer = await speak(server, get("/api/v1/auth/me", f"Host: {host}"))
            problem = assert_problem(answer, 400, "bad_request")
            assert problem["detail"].startswith("Invalid host header")
            assert "Location" not in answer.headers


async def test_what_goes_by_the_path_does_not_look_at_the_host(server: Server) -> None:
    answer = await speak(
        server, get("/api/v1/auth/me", "Host: x", "X-Forwarded-Host: evil.example")
    )

    assert_problem(answer, 401, "unauthenticated")


@pytest.mark.parametrize("environment", ["development", "staging"])
async def test_a_mailed_link_is_in_the_log_of_development_alone(
    serve: Serve, log: Log, environment: str
) -> None:
    """TRUST D2: elsewhere the log holds no token."""
    variables = PRODUCTION | {"ENVIRONMENT": environment, "LOG_LEVEL": "INFO"}
    async with serve(LOG_FILE=str(log.path), **variables) as server:
        await server.client()
        token = await mailbox.token(server)

    assert (token in log.text) == (environment == "development")
    assert "mail written" in log.text


async def test_production_redirects_to_https_and_shows_no_docs(serve: Serve) -> None:
    async with serve(**PRODUCTION, TRUSTED_PROXIES="127.0.0.1") as server:
        client = server.anonymous()
        plain = await send(client, "GET", "/api/v1/auth/me?a=b")
        client.headers["X-Forwarded-Proto"] = "https"
        secure = await client.get("/auth/me")
        hidden = [
            await send(client, "GET", path)
            for path in ("/docs", "/redoc", "/openapi.json")
        ]
        page = await send(client, "GET", "/")

    assert plain.status == 307
    assert plain.headers["Location"] == (
        server.url.replace("http:", "https:") + "/api/v1/auth/me?a=b"
    )
    assert_problem(secure, 401, "unauthenticated")
    for answer in (plain, secure, page, *hidden):
        assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
    assert [answer.status for answer in hidden] == [404, 404, 404]
    assert page.status == 200
    assert b'href="/docs"' not in page.body


async def test_development_neither_redirects_nor_sends_hsts(server: Server) -> None:
    answer = await send(server.anonymous(), "GET", "/docs")

    assert answer.status == 200
    assert "Strict-Transport-Security" not in answer.headers


@pytest.mark.parametrize(
    ("trusted", "expected"),
    [("", "127.0.0.1"), ("192.0.2.1", "127.0.0.1"), ("127.0.0.1", "203.0.113.7")],
)
async def test_only_a_trusted_proxy_says_where_a_login_came_from(
    serve: Serve, trusted: str, expected: str
) -> None:
    """P6."""
    async with serve(TRUSTED_PROXIES=trusted) as server:
        client = server.anonymous()
        client.headers["X-Forwarded-For"] = "6.6.6.6, 203.0.113.7"
        form = {"email": "ada@example.com", "password": PASSWORD}
        await client.post("/auth/register", json=form)
        await client.login("ada@example.com", PASSWORD)

        (session,) = (await client.get("/auth/sessions")).json["items"]

    assert session["ip"] == expected


# Other sites' pages


async def test_pages_of_the_named_origins_may_call(serve: Serve) -> None:
    async with serve(CORS_ORIGINS=APP_PAGE, CORS_CREDENTIALS="true") as server:
        client = await server.client()
        ours = await client.get("/auth/me", headers={"Origin": APP_PAGE})
        other = await client.get("/auth/me", headers={"Origin": "https://evil.example"})
        error = await client.get("/nothing", headers={"Origin": APP_PAGE})

    for answer in (ours, error):
        assert answer.headers["Access-Control-Allow-Origin"] == APP_PAGE
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Origin" not in other.headers
    assert other.headers["Vary"] == "Origin"


async def test_refused_preflights_are_counted_in_the_metrics(server: Server) -> None:
    async def refused() -> float:
        metrics = await server.anonymous().get("/metrics")
        (line,) = [
            found
            for found in metrics.body.decode().splitlines()
            if found.startswith("workroom_cors_refused_total ")
        ]
        return float(line.split()[1])

    before = await refused()
    preflight = {"Origin": APP_PAGE, "Access-Control-Request-Method": "GET"}
    await server.anonymous().request("OPTIONS", "/chats", headers=preflight)

    assert await refused() == before + 1


async def test_every_origin_is_never_allowed_with_credentials(
    settings_with: SettingsFactory,
) -> None:
    with pytest.raises(ConfigError, match="never allowed with CORS_CREDENTIALS"):
        settings_with(CORS_ORIGINS="*", CORS_CREDENTIALS="true")
