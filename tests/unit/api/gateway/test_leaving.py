import asyncio

import pytest
from starlette.requests import ClientDisconnect

from app.api.gateway.leaving import WhileWaiting
from app.core.visitor import Visitor


async def test_a_call_ends_when_its_client_leaves() -> None:
    visitor = Visitor()
    asyncio.get_running_loop().call_soon(visitor.leave)

    with pytest.raises(ClientDisconnect), WhileWaiting({"visitor": visitor}):
        await asyncio.Event().wait()

    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]  # a test is a task


async def test_no_call_begins_for_a_client_who_has_left() -> None:
    visitor = Visitor()
    visitor.leave()
    begun = False

    with pytest.raises(ClientDisconnect), WhileWaiting({"visitor": visitor}):
        begun = True

    assert not begun


async def test_behind_another_server_nobody_tells_and_the_block_goes_on() -> None:
    with WhileWaiting({}):
        await asyncio.sleep(0)


async def test_whoever_else_cancels_it_is_not_taken_for_its_client() -> None:
    waiting = asyncio.Event()

    async def call() -> None:
        with WhileWaiting({"visitor": Visitor()}):
            waiting.set()
            await asyncio.Event().wait()

    calling = asyncio.create_task(call())
    await waiting.wait()
    calling.cancel()

    with pytest.raises(asyncio.CancelledError):
        await calling


async def test_who_leaves_after_the_block_ends_nothing() -> None:
    visitor = Visitor()
    with WhileWaiting({"visitor": visitor}):
        pass

    visitor.leave()

    await asyncio.sleep(0)  # where a cancellation would be felt
