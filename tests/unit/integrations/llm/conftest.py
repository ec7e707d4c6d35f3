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
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.http import Http
from app.integrations.llm.registry import Providers
from app.integrations.llm.routes import Route
from app.integrations.llm.routing import Router
from tests.unit.integrations.llm.clock import Clock
from tests.unit.integrations.llm.house import Build, House, Scripted

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    """A pool that gives up on a silent server after a fifth of a second."""
    pool = Http(ModelSettings(connect_seconds=5, stall_seconds=0.2))
    yield pool
    await pool.close()


@asynccontextmanager
async def raw_server(handler: Handler) -> AsyncIterator[str]:
    """A server that does what no well-behaved one does; gives its base URL."""

    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.close()
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
