import asyncio

import pytest

from app.core.exceptions import AppError, BadRequestError
from app.integrations.llm.base import (
    ProviderNotConfiguredError,
    ProviderRejectedError,
    ProviderUnavailableError,
)
from app.services.knowledge.asking import Asking, is_away
from tests.unit.integrations.llm.clock import Clock


class Model:
    """One that is away, until it is back."""

    away = True
    asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        if self.away:
            raise ProviderUnavailableError("It does not answer.")
        return "yes"


async def rest(asking: Asking, model: Model, clock: Clock) -> int:
    """Seconds until the model is asked again."""
    seconds, asked = 0, model.asked
    while model.asked == asked:
        clock.now += 1
        seconds += 1
        await asking.answer(model)
    return seconds


async def test_a_model_is_left_alone_for_longer_until_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, model = Clock(), Model()
    monkeypatch.setattr("time.monotonic", clock)
    asking = Asking("m", without="searched without it")

    assert await asking.answer(model) is None
    rests = [await rest(asking, model, clock) for _ in range(5)]
    model.away = False
    assert await rest(asking, model, clock) == 30
    assert await asking.answer(model) == "yes"
    model.away = True
    assert await asking.answer(model) is None

    assert rests == [4, 8, 16, 30, 30]
    assert await rest(asking, model, clock) == 4


async def test_searches_that_fail_together_count_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, model = Clock(), Model()
    monkeypatch.setattr("time.monotonic", clock)
    asking = Asking("m", without="searched without it")

    async def ask() -> str:
        await asyncio.sleep(0)  # the others have begun by then
        return await model()

    await asyncio.gather(*(asking.answer(ask) for _ in range(5)))

    assert model.asked == 5
    assert [await rest(asking, model, clock) for _ in range(2)] == [4, 8]


@pytest.mark.parametrize(
    "error", [ProviderUnavailableError, ProviderNotConfiguredError]
)
def test_a_model_that_fails_for_all_is_away(error: type[AppError]) -> None:
    assert is_away(error("It does not answer."))


@pytest.mark.parametrize("error", [ProviderRejectedError, BadRequestError])
def test_a_model_that_refuses_one_text_is_not(error: type[AppError]) -> None:
    assert not is_away(error("This text is too long."))
