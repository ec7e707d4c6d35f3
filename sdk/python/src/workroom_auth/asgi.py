"""Middleware for ASGI: Starlette, FastAPI, Litestar, Quart and others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from workroom_auth import tokens
from workroom_auth.client import WorkroomAuth
from workroom_auth.errors import AuthError
from workroom_auth.paths import public_paths

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY_VIOLATION = 1008


class AuthMiddleware:
    """Lets in who is logged in, as `scope["state"]["identity"]`.

    In Starlette and FastAPI that is `request.state.identity`. An AuthError that is
    raised further in, by `identity.require(...)`, becomes its answer here. Middleware
    for CORS belongs outside of this one: browsers' preflights carry no token.
    """

    def __init__(
        self, app: App, auth: WorkroomAuth, *, public: Collection[str] = ()
    ) -> None:
        self._app = app
        self._auth = auth
        self._is_public = public_paths(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"} or self._is_public(scope["path"]):
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_noting_begin(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            identity = await self._auth.acheck(
                credential(scope), client_ip=client_ip(scope)
            )
            state = {**scope.get("state", {}), "identity": identity}
            await self._app({**scope, "state": state}, receive, send_noting_begin)
        except AuthError as error:
            if begun:
                raise
            await _refuse(scope, send, error)


def credential(scope: Scope) -> str | None:
    """The token or key in the headers of a request."""
    found = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in {b"authorization", b"x-api-key"}
    }
    return tokens.sent_with(found)


def client_ip(scope: Scope) -> str | None:
    client = scope.get("client")
    return str(client[0]) if client else None


async def _refuse(scope: Scope, send: Send, error: AuthError) -> None:
    if scope["type"] == "websocket":
        await send(
            {
                "type": "websocket.close",
                "code": _POLICY_VIOLATION,
                "reason": error.detail,
            }
        )
        return
    body = error.body()
    headers = {**error.headers, "Content-Length": str(len(body))}
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [
                (name.lower().encode(), value.encode())
                for name, value in headers.items()
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
