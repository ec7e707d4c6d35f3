"""How late the event loop is: what it has to do beyond what it can do."""

import asyncio
from contextlib import suppress

from app.core.metrics import LOOP_LAG, pass_on

_TICK = 0.1  # seconds
_LATE_TICKS = 4  # in a row before it counts: one slow call is no overload


class LoopLag:
    """Watches the loop it is opened in."""

    def __init__(self, limit: float) -> None:
        """`limit` in seconds."""
        self._limit = limit
        self._late = 0
        self._watcher: asyncio.Task[None] | None = None

    @property
    def too_long(self) -> bool:
        """Whether it has been beyond the limit for a while."""
        return self._late >= _LATE_TICKS

    def open(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + _TICK
            await asyncio.sleep(_TICK)
            self.note(clock() - due)

    def note(self, lag: float) -> None:
        """One measurement, in seconds."""
        LOOP_LAG.set(max(0.0, lag))
        pass_on()  # other processes' sums are read from where this leads
        self._late = self._late + 1 if lag > self._limit else 0
