"""Models that a search asks: it does without one that fails, or takes too long."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from app.core.exceptions import AppError
from app.integrations.llm.base import ProviderError, ProviderNotConfiguredError

T = TypeVar("T")

_PATIENCE = 3.0
"""Seconds that a call may take: somebody waits for an answer."""

_REST_SECONDS = 30.0
"""After it took longer, or the model failed, no search waits for it again so long."""

_log = structlog.get_logger()


class Asking:
    """One model of this process; `without` is what the log says where it is missed."""

    def __init__(self, model: str, *, without: str) -> None:
        self._model = model
        self._without = without
        self._rests_until = 0.0

    async def answer(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """What the model says; None where it fails, rests, or nobody can pay."""
        if time.monotonic() < self._rests_until:
            return None
        try:
            async with asyncio.timeout(_PATIENCE):
                return await ask()
        except (AppError, TimeoutError) as error:
            code = error.code if isinstance(error, AppError) else "timeout"
            _log.warning(self._without, model=self._model, code=code)
            if not isinstance(error, AppError) or is_away(error):
                self._rests_until = time.monotonic() + _REST_SECONDS
            return None


def is_away(error: AppError) -> bool:
    """Whether the model would fail all others, too."""
    return isinstance(error, ProviderNotConfiguredError) or (
        isinstance(error, ProviderError) and error.retryable
    )
