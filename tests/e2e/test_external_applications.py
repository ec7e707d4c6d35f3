"""The examples of the client libraries, really started, before a real Workroom.

A revoked credential stops working in them within their cache time, or at once where
they listen to Redis (T4); what they report is booked once.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis
from sqlalchemy import func, select

from app.core.config import ROOT
from app.models import ReportedUsage
from tests.conftest import Server, ServerFactory
from tests.e2e.processes import environment, free_port, until

pytestmark = pytest.mark.slow  # each starts a server and an application of its own

PYTHON_SDK, NODE_SDK = ROOT / "sdk" / "python", ROOT / "sdk" / "node"
NODE = shutil.which("node") or "node"
PYTHON = (sys.executable, "-m")
COMMANDS: dict[str, Callable[[str], Sequence[str]]] = {
    "fastapi": lambda port: (*PYTHON, "uvicorn", "fastapi_app:app", "--port", port),
    "flask": lambda port: (*PYTHON, "flask", "--app", "flask_app", "run", "-p", port),
    "django-wsgi": lambda port: (
        sys.executable, "django_app.py", "runserver", "--noreload", port,
    ),
    "django-asgi": lambda port: (*PYTHON, "uvicorn", "django_app:app", "--port", port),
}  # fmt: skip


class Application:
    """A running example."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def get(self, path: str, token: str | None = None) -> tuple[int, Any]:
        return await self._ask("GET", path, token)

    async def post(self, path: str, token: str | None = None) -> tuple[int, Any]:
        return await self._ask("POST", path, token)

    async def _ask(self, method: str, path: str, token: str | None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self._http.request(
            method, self._url + path, headers=headers
        ) as answer:
            body = await answer.read()
            is_json = answer.content_type.endswith("json")
            return answer.status, json.loads(body) if is_json else body


def started(
    command: Sequence[str], folder: Path, log: Path, **variables: str
) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment({"PYTHONPATH": str(PYTHON_SDK / "src"), **variables}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def printed(log: Path) -> str:
    return log.read_text()


@asynccontextmanager
async def running(
    command: Callable[[str], Sequence[str]],
    folder: Path,
    log: Path,
    **variables: str,
) -> AsyncIterator[Application]:
    port = str(free_port())
    process = started(command(port), folder, log, PORT=port, **variables)
    # A connection for each request: some of these servers keep none.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as http:
        application = Application(http, f"http://127.0.0.1:{port}")

        async def answers() -> bool:
            assert process.poll() is None, printed(log)
            try:
                return (await application.get("/health"))[0] == 200
            except aiohttp.ClientConnectionError:
                return False

        try:
            await until(answers, "the example to answer")
            yield application
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 30)


async def a_day(server: Server, application: Application) -> str:
    """What every example must do; gives the token of a user who is let in."""
    user = await server.client()
    token = user.tokens["access_token"]
    me = (await user.get("/auth/me")).json
    keys = {
        scope: (
            await user.post("/apikeys", json={"name": scope, "scopes": [scope]})
        ).json
        for scope in ("ext:reports", "models")
    }
    writer, reader = keys["ext:reports"]["key"], keys["models"]["key"]

    who = {"id": me["id"], "username": "ada"}
    for good in (token, writer, reader):
        status, told = await application.get("/me", good)
        assert (status, who.items() <= told.items()) == (200, True), told
    for bad in (None, "garbage", user.tokens["refresh_token"], writer[:-1] + "!"):
        status, problem = await application.get("/me", bad)
        assert status == 401, problem
    statuses = [
        (await application.post("/reports", sent))[0]
        for sent in (writer, token, reader, None)
    ]
    assert statuses == [200, 200, 403, 401]

    await user.delete(f"/apikeys/{keys['ext:reports']['id']}")
    await until(lambda: refused(application, writer), "the revoked key to be refused")
    assert (await application.get("/me", token))[0] == 200
    return str(token)


async def refused(application: Application, token: str) -> bool:
    return (await application.get("/me", token))[0] == 401


async def unavailable(application: Application, token: str) -> bool:
    return (await application.get("/me", token))[0] == 503


async def has_booked(server: Server, expected: int) -> bool:
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        amount = await session.scalar(select(func.sum(ReportedUsage.amount)))
        return int(amount or 0) == expected


async def variables(server: Server, **others: str) -> dict[str, str]:
    key = (await server.service_key("introspect", "report")).key
    return {
        "WORKROOM_URL": server.url,
        "WORKROOM_SERVICE_KEY": key,
        "CACHE_SECONDS": "0.2",
        **others,
    }


@pytest.mark.parametrize("example", COMMANDS)
async def test_an_example_lets_in_whom_workroom_knows(
    serve: ServerFactory, example: str, tmp_path: Path
) -> None:
    """TRUST T4, K2, F6: closed where Workroom cannot be reached."""
    folder, log = PYTHON_SDK / "examples", tmp_path / "example.log"
    async with AsyncExitStack() as stack:
        async with serve() as server:
            application = await stack.enter_async_context(
                running(COMMANDS[example], folder, log, **await variables(server))
            )
            token = await a_day(server, application)
            await until(lambda: has_booked(server, 2), "the reports to be booked")

        await until(lambda: unavailable(application, token), "the outage to be felt")


async def test_over_redis_a_revocation_is_felt_at_once(
    serve: ServerFactory, redis_url: str, tmp_path: Path
) -> None:
    """TRUST T4: however long the cache would keep it."""
    folder, log = PYTHON_SDK / "examples", tmp_path / "example.log"
    async with serve(REDIS_URL=redis_url) as server:
        others = {"CACHE_SECONDS": "3600", "WORKROOM_REDIS_URL": redis_url}
        environment_of = await variables(server, **others)
        async with running(
            COMMANDS["fastapi"], folder, log, **environment_of
        ) as application:
            user = await server.client()
            token = user.tokens["access_token"]
            made = await user.post("/apikeys", json={"name": "x"})
            key = made.json
            assert (await application.get("/me", token))[0] == 200  # now it listens
            await until(lambda: has_listener(redis_url), "the example to listen")
            assert (await application.get("/me", key["key"]))[0] == 200

            await user.delete(f"/apikeys/{key['id']}")
            await until(lambda: refused(application, key["key"]), "the key's end", 2)
            assert (await application.get("/me", token))[0] == 200

            form = {"refresh_token": user.tokens["refresh_token"]}
            await user.post("/auth/logout", json=form)
            await until(lambda: refused(application, token), "the session's end", 2)


async def has_listener(redis_url: str) -> bool:
    """Whether somebody besides the server itself listens."""
    async with Redis.from_url(redis_url) as redis:
        found: Any = await redis.pubsub_numsub("workroom:session.forget")
    return int(found[0][1]) == 2


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_the_library_for_node_passes_its_own_tests(backend: str) -> None:
    done = subprocess.run(
        [NODE, "--test"], cwd=NODE_SDK, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout


@pytest.fixture
def with_express(tmp_path: Path) -> Path:
    """A folder with the example for Express, and all that it needs."""
    shutil.copy(NODE_SDK / "examples" / "express_app.js", tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    fetched = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "express@5", NODE_SDK],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert fetched.returncode == 0, fetched.stderr
    return tmp_path


@pytest.mark.slow  # npm fetches Express over the network
async def test_the_express_example(serve: ServerFactory, with_express: Path) -> None:
    """TRUST T4, K2."""
    log = with_express / "example.log"
    command = (NODE, "express_app.js")
    async with (
        serve() as server,
        running(
            lambda _: command, with_express, log, **await variables(server)
        ) as application,
    ):
        await a_day(server, application)
        await until(lambda: has_booked(server, 2), "the reports to be booked")
