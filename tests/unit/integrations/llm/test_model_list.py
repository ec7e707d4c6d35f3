import asyncio

import pytest

from app.integrations.llm.base import ModelInfo
from app.integrations.llm.models import ModelList

MODEL = ModelInfo("openai/some", 1000, 100, frozenset({"text"}))


class Server:
    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()

    async def ask(self) -> list[ModelInfo]:
        self.asked += 1
        await self.answers.wait()
        return [MODEL]


async def test_the_list_comes_though_who_asked_for_it_has_left() -> None:
    server = Server()
    listed = ModelList("it", server.ask, patience=5)
    leaving = asyncio.create_task(listed.get())
    staying = asyncio.create_task(listed.get())
    await asyncio.sleep(0)

    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    server.answers.set()

    assert await staying == [MODEL]
    assert await listed.get() == [MODEL]
    assert server.asked == 1


async def test_an_error_of_ours_is_told_to_all_who_wait_and_asked_again() -> None:
    async def ask() -> list[ModelInfo]:
        raise ZeroDivisionError

    listed = ModelList("it", ask, patience=5)

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await listed.get()
