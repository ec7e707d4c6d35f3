import asyncio
import weakref

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from app.api.gateway import leaving
from app.api.gateway.leaving import WhileWaiting


class Client:
    """What the server hears of one: whether it has left."""

    def __init__(self) -> None:
        self.listened = asyncio.Event()
        self.left = asyncio.Event()

    async def receive(self) -> Message:
        self.listened.set()
        await self.left.wait()
        return {"type": "http.disconnect"}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "_AFTER", 0)


async def test_a_call_ends_when_its_client_leaves() -> None:
    client = Client()
    client.left.set()

    with pytest.raises(ClientDisconnect), WhileWaiting(client.receive):
        await asyncio.Event().wait()

    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]  # a test is a task


async def test_whoever_else_cancels_it_is_not_taken_for_its_client() -> None:
    client = Client()

    async def call() -> None:
        with WhileWaiting(client.receive):
            await asyncio.Event().wait()

    calling = asyncio.create_task(call())
    await client.listened.wait()
    calling.cancel()

    with pytest.raises(asyncio.CancelledError):
        await calling


@pytest.mark.usefixtures("no_collector")
async def test_nothing_of_a_call_that_took_long_waits_for_the_garbage_collector() -> (
    None
):
    client = Client()
    with WhileWaiting(client.receive):
        await client.listened.wait()
    listening = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait(listening)
    listening.clear()

    left = weakref.ref(client)
    del client

    assert left() is None
