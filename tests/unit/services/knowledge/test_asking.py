import pytest

from app.core.exceptions import AppError, BadRequestError
from app.integrations.llm.base import (
    ProviderNotConfiguredError,
    ProviderRejectedError,
    ProviderUnavailableError,
)
from app.services.knowledge.asking import is_away


@pytest.mark.parametrize(
    "error", [ProviderUnavailableError, ProviderNotConfiguredError]
)
def test_a_model_that_fails_for_all_is_away(error: type[AppError]) -> None:
    assert is_away(error("It does not answer."))


@pytest.mark.parametrize("error", [ProviderRejectedError, BadRequestError])
def test_a_model_that_refuses_one_text_is_not(error: type[AppError]) -> None:
    assert not is_away(error("This text is too long."))
