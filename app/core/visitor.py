"""Who waits for an answer, as our server sees them: it tells more than ASGI has."""

from collections.abc import Callable


class Visitor:
    """Of one request, whose scope has it as `visitor`.

    `arrived` tells whether the request had come whole as it began to be answered.
    `on_leave` is called when the client hangs up before its answer is complete, and
    `left` tells it afterwards.
    """

    __slots__ = ("arrived", "left", "on_leave")

    def __init__(self) -> None:
        self.arrived = self.left = False
        self.on_leave: Callable[[], object] | None = None

    def leave(self) -> None:
        self.left = True
        if self.on_leave is not None:
            self.on_leave()
