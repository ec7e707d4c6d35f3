"""What every request passes on its way in: one gate after the other.

A middleware for each of them would be a coroutine around all that is within, and a
wrapper for each message in and out: a fifth of what a call of the gateway costs. So
gates are asked in turn, and what they want to do as an answer starts, and when it has
ended, is noted in the `Visit`.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import errors
from app.core.visitor import Visitor

PROBES = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})
"""Those who watch the server must be answered above all when it is overloaded."""

_CLIENT_LEFT = 499
"""Nobody reads it: so the log tells it, as that of nginx does."""

Verdict = Response | Awaitable[Response | None] | None
"""The answer to whoever does not pass; awaitable only where a gate has to wait."""


class Visit:
    """One request, on its way through the gates.

    A gate may put another `scope` or `receive` in the place of what it finds.
    `headers` are those of the request, by lower-case names; of several by one name the
    first. `arrived` tells whether all of the body is at hand. `at_start` is called with
    the message that starts the answer, which may get more headers: its `headers` is a
    list. `at_end` is called when all is over. Of both, what was noted last is called
    first.
    """

    __slots__ = (
        "arrived", "at_end", "at_start", "headers", "receive", "scope", "started",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.headers: dict[bytes, bytes] = dict(scope["headers"][::-1])
        visitor: Visitor | None = scope.get("visitor")  # our own server knows them
        self.arrived = visitor is not None and visitor.arrived
        self.at_start: list[Callable[[Message], None]] = []
        self.at_end: list[Callable[[], None]] = []
        self.started = False

    @property
    def ip(self) -> str | None:
        """The address of the client, once `Proxies` has found it."""
        client = self.scope["client"]
        return client[0] if client else None

    def sending(self, send: Send) -> Send:
        def noting_start(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                self.started = True
                message["headers"] = list(message.get("headers", ()))
                for note in reversed(self.at_start):
                    note(message)
            return send(message)

        return noting_start

    def end(self) -> None:
        for note in reversed(self.at_end):
            note()
        # What was noted holds the visit, mostly: in a ring, all of them would wait for
        # the garbage collector, with all that the request holds.
        self.at_start.clear()
        self.at_end.clear()
        del self.receive


class Gate(Protocol):
    def enter(self, visit: Visit) -> Verdict:
        """None to whoever may pass."""


class Front:
    """The outermost: it also answers for what nobody has caught.

    A reply that fails once it has begun is the server's to cut.
    """

    def __init__(self, app: ASGIApp, gates: Sequence[Gate]) -> None:
        self._app = app
        self._gates = gates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = Visit(scope, receive)
        send = visit.sending(send)
        try:
            for gate in self._gates:
                refusal = gate.enter(visit)
                if refusal is None:
                    continue
                if not isinstance(refusal, Response):
                    refusal = await refusal
                if refusal is not None:
                    await refusal(visit.scope, visit.receive, send)
                    return
            await self._app(visit.scope, visit.receive, send)
        except ClientDisconnect:
            if visit.started:
                raise
            nobody = Response(status_code=_CLIENT_LEFT)
            await nobody(visit.scope, visit.receive, send)
        except Exception as error:  # the top of a request: any endpoint may fail
            if visit.started:
                raise
            answer = errors.unexpected(visit.scope["path"], error)
            await answer(visit.scope, visit.receive, send)
        finally:
            visit.end()
