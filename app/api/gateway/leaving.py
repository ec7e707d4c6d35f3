"""Clients that leave before their answer has begun."""

import asyncio
from types import TracebackType

from starlette.requests import ClientDisconnect
from starlette.types import Scope

from app.core.visitor import Visitor


class WhileWaiting:
    """Ends the block where the client leaves, with a ClientDisconnect.

    A stream whose answer has begun looks after its client by itself. Other servers than
    ours do not tell of leaving: behind one of them the block goes on.
    """

    __slots__ = ("_task", "_visitor")

    def __init__(self, scope: Scope) -> None:
        self._visitor: Visitor = scope.get("visitor") or Visitor()

    def __enter__(self) -> None:
        if self._visitor.left:
            raise ClientDisconnect
        self._task = asyncio.current_task()
        assert self._task is not None
        self._visitor.on_leave = self._task.cancel

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._visitor.on_leave = None
        if self._visitor.left and isinstance(error, asyncio.CancelledError):
            assert self._task is not None
            self._task.uncancel()
            raise ClientDisconnect from None
