"""A request and its answer without a server, for middleware alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.middleware.front import Front, Gate


@dataclass
class Answer:
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Its only value; None where it is not there."""
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, f"{name} was sent twice"
        return found[0] if found else None


@dataclass
class Inner:
    """What a middleware wraps: it answers, and remembers how it was asked."""

    status: int = 200
    scope: Scope | None = None
    body: bytes | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.body = await _read(receive) if scope["type"] == "http" else None
        await send({"type": "http.response.start", "status": self.status})
        await send({"type": "http.response.body", "body": b"inner"})

    @property
    def client(self) -> str:
        assert self.scope is not None
        return str(self.scope["client"][0])

    @property
    def scheme(self) -> str:
        assert self.scope is not None
        return str(self.scope["scheme"])


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message["body"])
        if not message.get("more_body"):
            return body


def make_scope(**members: Any) -> Scope:
    return {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "scheme": "http",
        "client": ("198.51.100.9", 4711),
        "server": ("127.0.0.1", 8000),
        "headers": [],
        **members,
    }


async def ask(
    app: ASGIApp,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    *,
    chunks: Iterable[bytes] = (b"",),
    **members: Any,
) -> Answer:
    """Send one request; `chunks` are its body, `members` those of its scope."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    raw = [(k.lower().encode(), v.encode("latin-1")) for k, v in pairs]
    pieces = list(chunks)
    answer = Answer()

    async def receive() -> Message:
        if not pieces:
            return {"type": "http.disconnect"}
        body = pieces.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(pieces)}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            for key, value in message.get("headers", []):
                answer.headers.append((key.decode(), value.decode()))
        else:
            answer.body += message.get("body", b"")

    await app(make_scope(headers=raw, **members), receive, send)
    return answer


def behind(*gates: Gate, inner: ASGIApp | None = None) -> Front:
    """What has these gates before it: something that answers, or `inner`."""
    within = inner or Inner()

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await within(scope, receive, send)
        except HTTPException as error:  # as the framework answers it
            answer = PlainTextResponse(error.detail, error.status_code)
            await answer(scope, receive, send)

    return Front(answering, gates)


async def nothing(*_: Any) -> Any:
    """For messages that a test never sends."""
    raise AssertionError("nobody was to ask for this")
