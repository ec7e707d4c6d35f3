"""Waiting for a word from somewhere else in the process, or for time to run out."""

import asyncio


class Wakeup:
    """One task waits, others wake it; a wake that came before the wait counts.

    For waits that come every few milliseconds: there is one timer for many of them,
    which looks at the deadline only when it fires.
    """

    __slots__ = ("_deadline", "_timer", "_waiter", "_woken")

    def __init__(self) -> None:
        self._woken = False
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        self._woken = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, seconds: float) -> bool:
        """Wait to be woken; False when `seconds` went by first."""
        if not self._woken:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            self._deadline = loop.time() + seconds
            if self._timer is None or self._timer.when() > self._deadline:
                self.leave()
                self._timer = loop.call_at(self._deadline, self._tick, loop)
            await self._waiter
        woken, self._woken = self._woken, False
        return woken

    def forget(self) -> None:
        """What woke before is over; the timer may serve what is waited for next."""
        self._woken = False

    def leave(self) -> None:
        """Nobody waits any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if loop.time() < self._deadline:
            self._timer = loop.call_at(self._deadline, self._tick, loop)
        else:
            self._waiter.set_result(None)
