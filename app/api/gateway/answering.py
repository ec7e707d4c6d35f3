"""One call, from its request to its answer: the same for every wire format."""

from typing import Any

from fastapi import Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.api.deps import principal_of
from app.api.gateway.leaving import WhileWaiting
from app.api.scopes import check_scope
from app.api.streaming import EVENT_STREAM, UNBUFFERED, stream_response
from app.services.authorization import Principal
from app.services.gateway.body import parse
from app.services.gateway.cache import Kept
from app.services.gateway.fields import Json
from app.services.gateway.format import Format
from app.services.gateway.incoming import Incoming
from app.services.runtime import Runtime

CALLED_WITH: dict[str, Any] = {
    "security": [{"OAuth2PasswordBearer": []}, {"APIKeyHeader": []}]
}
"""What the description says of calls: they ask who calls by themselves, since what
FastAPI does for a dependency would be a tenth of what a call costs."""


async def answer(request: Request, format_: Format) -> Response:
    """Raises AppError where a call fails before the first piece of its answer."""
    runtime = runtime_of(request)
    user = _known(request, runtime) or await principal_of(request)
    raw = await _body(request.receive)
    incoming = Incoming(
        user, format_, await parse(raw), size=len(raw), betas=betas_of(request)
    )
    with WhileWaiting(request.scope):
        answered = await runtime.gateway.answer(incoming)
    if isinstance(answered, bytes):
        return Whole(answered)
    if isinstance(answered, Kept):
        return _again(answered, stream=incoming.stream)
    return stream_response(answered)


def _again(kept: Kept, *, stream: bool) -> Response:
    """An answer of before; of a stream, all events at once."""
    response = (
        Response(kept.body, media_type=EVENT_STREAM, headers=UNBUFFERED)
        if stream
        else Whole(kept.body)
    )
    response.headers["X-Workroom-Cache"] = "hit"
    return response


async def body_of(request: Request) -> Json:
    """The JSON object that was sent; raises InvalidFieldError."""
    return await parse(await _body(request.receive))


def betas_of(request: Request) -> str:
    """What Anthropic's clients ask for by a header."""
    for name, value in request.scope["headers"]:
        if name == b"anthropic-beta":
            return str(value, "latin-1")
    return ""


def runtime_of(request: Request) -> Runtime:
    runtime: Runtime = request.scope["app"].state.runtime
    return runtime


async def _body(receive: Receive) -> bytes:
    """As it comes: Starlette's own way keeps what nobody asks for again."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


class Whole(Response):
    """JSON as it is, without what other answers may want."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.status_code = 200
        self.background = None
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
        ]

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200}
        await send({**start, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


async def caller(request: Request) -> Principal:
    """Who calls; raises UnauthenticatedError, or ForbiddenError for want of a scope."""
    return _known(request, runtime_of(request)) or await principal_of(request)


def _known(request: Request, runtime: Runtime) -> Principal | None:
    """Who calls by a key that was used a moment ago, as most do."""
    scope = request.scope
    for name, value in scope["headers"]:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            sent = value[7:]
        elif name == b"x-api-key":
            sent = value
        else:
            continue
        client = scope["client"]
        ip = client[0] if client else None
        known = runtime.principals.known_key(sent.decode("latin-1"), ip)
        if known is not None:
            check_scope(known, scope["method"], scope["path"])
        return known
    return None
