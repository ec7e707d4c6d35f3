"""Clients that leave before their answer has begun."""

import asyncio
from types import TracebackType

from starlette.requests import ClientDisconnect
from starlette.types import Receive

_AFTER = 0.25
"""Seconds of a call after which its client is looked after: most are done by then, and
a task for each would be a tenth of what they cost."""


class WhileWaiting:
    """Ends the block where the client leaves, with a ClientDisconnect.

    The request's body must have come. A stream whose answer has begun looks after its
    client by itself.
    """

    __slots__ = ("_left", "_listening", "_receive", "_task", "_timer")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = False
        self._listening: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_AFTER, self._begin)

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None  # its end holds us: a ring, with all of the request
        if self._left and isinstance(error, asyncio.CancelledError):
            assert self._task is not None
            self._task.uncancel()
            raise ClientDisconnect from None

    def _begin(self) -> None:
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        assert self._task is not None
        self._task.cancel()
