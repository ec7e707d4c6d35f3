import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from app.core.config import ModelSettings
from app.integrations.llm.http import Http

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
