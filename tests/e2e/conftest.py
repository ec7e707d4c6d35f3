"""What the tests of the whole program stand on.

All run in one event loop, so that servers, which take a second to start, and fakes
serve many tests. A test that ends the shared server need not start it again: the next
one that asks for it does.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from tests.conftest import BACKENDS
from tests.e2e.processes import Server
from tests.fakes.bedrock import ACCESS_KEY, REGION, SECRET_KEY, FakeBedrock
from tests.fakes.faults import FaultPlan
from tests.fakes.model_server import FakeServer
from tests.fakes.openai import FakeOpenAI

for_the_session = pytest_asyncio.fixture(scope="session", loop_scope="session")


@dataclass(frozen=True)
class Provider:
    """A fake, and the name of a model behind it."""

    model: str
    fake: FakeServer


@dataclass(frozen=True)
class Fakes:
    bedrock: FakeBedrock
    openai: FakeOpenAI

    @property
    def variables(self) -> dict[str, str]:
        return {
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "BEDROCK_BASE_URL": self.bedrock.url,
            "OPENAI_BASE_URL": self.openai.base_url,
        }


@for_the_session
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    # A connection for each request, as many as a test wants: none is left over from
    # a server that was killed.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


@for_the_session
async def fakes() -> AsyncIterator[Fakes]:
    async with FakeBedrock() as bedrock, FakeOpenAI() as openai:
        yield Fakes(bedrock, openai)


@pytest.fixture(params=["bedrock", "openai"])
def provider(request: pytest.FixtureRequest, fakes: Fakes) -> Provider:
    """One after the other; its plan is this test's own."""
    fake: FakeServer = getattr(fakes, request.param)
    fake.plan = FaultPlan()
    fake.calls.clear()
    if fake is fakes.bedrock:
        model = "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0"
        return Provider(model, fake)
    return Provider("openai/fake-small", fake)


with_any_provider = pytest.mark.parametrize("provider", ["openai"], indirect=True)
"""For tests of what no provider has to do with."""


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


NewDatabase = Callable[[], Awaitable[dict[str, str]]]


@pytest.fixture(scope="session")
def new_database(backend: str, request: pytest.FixtureRequest) -> NewDatabase:
    """Gives the variables that lead to an empty database, not migrated."""

    async def new() -> dict[str, str]:
        if backend == "sqlite":
            return {}  # in the server's own folder
        return {"DATABASE_URL": await create_database(postgres_url)}

    if backend == "postgresql":
        postgres_url: str = request.getfixturevalue("postgres_url")
    return new


async def create_database(postgres_url: str) -> str:
    """A new database beside that one; gives its URL."""
    name = f"e2e_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    before, _, options = postgres_url.partition("?")
    return f"{before.rpartition('/')[0]}/{name}" + (f"?{options}" if options else "")


@for_the_session
async def shared_server(
    http: aiohttp.ClientSession,
    fakes: Fakes,
    new_database: NewDatabase,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    server = Server(http, folder, **fakes.variables, **await new_database())
    yield server
    await server.stop()
    assert server.complaints() == []


@pytest_asyncio.fixture(loop_scope="session")
async def server(shared_server: Server) -> Server:
    """A running server with every provider, on each database in turn."""
    if not shared_server.running:
        await shared_server.start()
    return shared_server


class Begin:
    """Starts servers of a test's own: `server = await begin(SETTING=...)`."""

    def __init__(
        self, http: aiohttp.ClientSession, folder: Path, settings: dict[str, str]
    ) -> None:
        self.servers: list[Server] = []
        self._http = http
        self._folder = folder
        self._settings = settings

    async def __call__(self, **settings: str) -> Server:
        server = self.prepared(**settings)
        await server.start()
        return server

    def prepared(self, **settings: str) -> Server:
        """One that is not started yet; without DATABASE_URL it has its own SQLite."""
        folder = self._folder / f"server-{len(self.servers)}"
        folder.mkdir()
        server = Server(self._http, folder, **{**self._settings, **settings})
        self.servers.append(server)
        return server


@pytest_asyncio.fixture(loop_scope="session")
async def begin(
    http: aiohttp.ClientSession, fakes: Fakes, tmp_path: Path
) -> AsyncIterator[Begin]:
    begin = Begin(http, tmp_path, fakes.variables)
    yield begin
    for server in begin.servers:
        await server.stop()
    for server in begin.servers:
        assert server.complaints() == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what servers printed where a test fails."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        begin = item.funcargs.get("begin")
        servers = [*begin.servers] if isinstance(begin, Begin) else []
        shared = item.funcargs.get("server")
        servers += [shared] if isinstance(shared, Server) else []
        for server in servers:
            report.sections.append((f"log of {server.url}", server.log[-5000:]))
    return report
