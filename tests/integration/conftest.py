"""The gateway before each provider, as other people's clients find it."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import aiohttp
import pytest
import pytest_asyncio

from app.core.database import Database
from app.main import create_app
from app.models import User
from tests.conftest import Server, make_settings, serving
from tests.fakes.faults import FaultPlan
from tests.integration.gateway import Gateway
from tests.integration.providers import FAKES, MODELS, variables_for

CATALOGUE = """
["openai/fake-small"]
context_window = 32_000
max_output_tokens = 4096
capabilities = ["text", "vision", "tools", "thinking"]
prices = { input = 10, output = 100 }
"""
"""Of a server of one's own an installation must say what its models can do."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=sorted(MODELS))
async def running_gateway(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    sqlite_template: Path,
) -> AsyncIterator[Gateway]:
    """One for all tests of a module: what they need of the database is a key."""
    provider, folder = str(request.param), tmp_path_factory.mktemp("gateway")
    shutil.copy(sqlite_template, folder / "workroom.db")
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(FAKES[provider]())
        catalogue = folder / "catalogue.toml"
        catalogue.write_text(CATALOGUE)
        variables = variables_for(provider, fake)
        variables["MODEL_CATALOGUE"] = str(catalogue)
        # Nothing is tried again, so that each fault is seen.
        variables |= {"PROVIDER_STALL_SECONDS": "0.6", "PROVIDER_RETRIES": "0"}
        app = create_app(make_settings(folder, **variables))
        url = await stack.enter_async_context(serving(app))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        server = Server(app, url, http)
        yield await Gateway.opened(server, provider, fake)


@pytest.fixture
def gateway(running_gateway: Gateway) -> Gateway:
    """Before a provider that has nothing to remember of the test before."""
    running_gateway.fake.plan = FaultPlan()
    running_gateway.fake.calls.clear()
    return running_gateway


@pytest.fixture
async def owner(database: Database) -> UUID:
    """The id of a user who is there, and nothing more."""
    user = User(email="ada@example.com", password_hash="none")
    async with database.unit_of_work() as session:
        session.add(user)
    return user.id
