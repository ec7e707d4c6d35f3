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

_FIRST_REST, _LONGEST_REST = 4.0, 30.0
"""Seconds: after it took longer, or the model failed, no search waits for it again so
long; twice as long each time until it answers. A local model loads in some seconds."""

_log = structlog.get_logger()


class Asking:
    """One model of this process; `without` is what the log says where it is missed."""

    def __init__(self, model: str, *, without: str) -> None:
        self._model = model
        self._without = without
        self._rest = _FIRST_REST
        self._rests_until = 0.0

    async def answer(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """What the model says; None where it fails, rests, or nobody can pay."""
        if time.monotonic() < self._rests_until:
            return None
        try:
            async with asyncio.timeout(_PATIENCE):
                answer = await ask()
        except (AppError, TimeoutError) as error:
            code = error.code if isinstance(error, AppError) else "timeout"
            _log.warning(self._without, model=self._model, code=code)
            if not isinstance(error, AppError) or is_away(error):
                self._leave_alone()
            return None
        self._rest = _FIRST_REST
        return answer

    def _leave_alone(self) -> None:
        now = time.monotonic()
        if now >= self._rests_until:  # else one that was asked beside it has done so
            self._rests_until = now + self._rest
            self._rest = min(2 * self._rest, _LONGEST_REST)


def is_away(error: AppError) -> bool:
    """Whether the model would fail all others, too."""
    return isinstance(error, ProviderNotConfiguredError) or (
        isinstance(error, ProviderError) and error.retryable
    )
