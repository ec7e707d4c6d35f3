import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
)
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.core.config import LiveSettings, ModelSettings, load_settings
from app.integrations.llm.anthropic import AnthropicProvider
from app.integrations.llm.base import Provider
from app.integrations.llm.bedrock import BedrockProvider
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.http import Http
from app.integrations.llm.registry import Providers
from app.integrations.llm.routes import Route
from app.integrations.llm.routing import Router
from tests.fakes.anthropic import API_KEY, FakeAnthropic
from tests.fakes.bedrock import API_KEY as BEDROCK_KEY
from tests.fakes.bedrock import REGION, FakeBedrock
from tests.fakes.model_server import FakeServer
from tests.unit.integrations.llm.clock import Clock
from tests.unit.integrations.llm.house import Build, House, Scripted

Claude = tuple[FakeServer, Provider, str]
"""A server, its provider, and a model that the catalogue does not know."""

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    """A pool that gives up on a silent server after a second, however busy we are."""
    pool = Http(ModelSettings(connect_seconds=5, stall_seconds=1))
    yield pool
    await pool.close()


@pytest.fixture(params=["anthropic", "bedrock", "mantle"])
async def claude(request: pytest.FixtureRequest, http: Http) -> AsyncIterator[Claude]:
    """Each of the three ways to Claude."""
    fake = FakeAnthropic() if request.param == "anthropic" else FakeBedrock()
    async with fake as server:
        url = server.url + ("/anthropic" if request.param == "mantle" else "")
        settings = ModelSettings(
            anthropic_base_url=url,
            anthropic_api_key=API_KEY,
            aws_region=REGION,
            bedrock_base_url=url,
            bedrock_api_key=BEDROCK_KEY,
            bedrock_endpoint="mantle" if request.param == "mantle" else "runtime",
        )
        catalogue = Catalogue.load()
        if request.param == "anthropic":
            yield server, AnthropicProvider(settings, catalogue, http), "claude-x-1"
        else:
            provider = BedrockProvider(settings, catalogue, http)
            yield server, provider, "anthropic.claude-x-1"


@asynccontextmanager
async def raw_server(handler: Handler) -> AsyncIterator[str]:
    """A server that does what no well-behaved one does; gives its base URL."""
    open_ones: set[asyncio.StreamWriter] = set()

    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        open_ones.add(writer)
        try:
            await handler(reader, writer)
        finally:
            writer.close()
            open_ones.discard(writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.close()
        for writer in open_ones:  # since Python 3.12 they are waited for
            writer.close()
        await server.wait_closed()


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def make(
        routes: Mapping[str, Route] | None = None,
        *others: Any,
        retries: int = 2,
        chance: Callable[[], float] = lambda: 1.0,
    ) -> House:
        settings = load_settings({"SECRET_KEY": "x" * 32}, tmp_path)
        provider, clock, catalogue = Scripted(), Clock(), Catalogue.load()
        providers = Providers(
            LiveSettings(settings), [provider, *others], catalogue=catalogue
        )
        router = Router(
            providers,
            retries=retries,
            clock=clock,
            sleep=clock.sleep,
            chance=chance,
        )
        router.register(routes or {})
        return House(router, provider, clock, catalogue)

    return make
