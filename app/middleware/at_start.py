"""What middleware does as an answer starts: one wrapper of `send` does it all.

Each middleware that wants to see the start would wrap `send` for itself, and so every
part of an answer would go through all of them, of whom none looks at it: a fifth of
what a part of a stream costs.
"""

from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Note = Callable[[Message], None]

_KEY = "workroom.at_start"


class AtStart:
    """The outermost: calls what was noted by those within, the innermost first."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        notes: list[Note] = []
        scope[_KEY] = notes
        await self._app(scope, receive, _wrapped(send, notes))


def at_start(scope: Scope, send: Send, note: Note) -> Send:
    """Have `note` called with the message that starts the answer; send by the result.

    It may add headers, for the message's `headers` is a list.
    """
    notes: list[Note] | None = scope.get(_KEY)
    if notes is None:  # a middleware that stands alone
        return _wrapped(send, [note])
    notes.append(note)
    return send


def _wrapped(send: Send, notes: list[Note]) -> Send:
    def send_noting(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            headers = message.get("headers")
            if type(headers) is not list:
                message["headers"] = list(headers or ())
            for note in reversed(notes):
                note(message)
        return send(message)

    return send_noting
