"""ASGI without any framework: requests and websockets as they are."""

from collections.abc import MutableMapping
from typing import Any

import pytest
from conftest import Connect, FakeWorkroom, active
from workroom_auth import ForbiddenError
from workroom_auth.asgi import AuthMiddleware, Receive, Scope, Send

TOKEN = "a token"


async def inner(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["path"] == "/forbidden":
        scope["state"]["identity"].require("ext:nothing")
    who = scope.get("state", {}).get("identity")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/too-late":
        raise ForbiddenError("after the answer has begun")
    await send({"type": "http.response.body", "body": f"{who and who.sub}".encode()})


async def ask(
    app: AuthMiddleware, path: str, *, kind: str = "http", **headers: str
) -> list[MutableMapping[str, Any]]:
    """The messages that come back."""
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": f"{kind}.disconnect"}

    scope = {
        "type": kind,
        "path": path,
        "client": ("203.0.113.7", 5),
        "headers": [
            (name.replace("_", "-").encode(), value.encode())
            for name, value in headers.items()
        ],
    }
    await app(scope, receive, send)
    return sent


@pytest.fixture
def app(workroom: FakeWorkroom, connect: Connect) -> AuthMiddleware:
    workroom.answers[TOKEN] = active(scope="ext:something")
    return AuthMiddleware(inner, connect(), public=["/", "/static/*"])


async def test_who_is_logged_in_is_in_the_scope(app: AuthMiddleware) -> None:
    by_header = [
        await ask(app, "/private", authorization=f"Bearer {TOKEN}"),
        await ask(app, "/private", x_api_key=TOKEN),
    ]

    bodies = {messages[-1]["body"] for messages in by_header}
    assert bodies == {active()["sub"].encode()}


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", f"Basic {TOKEN}"])
async def test_who_is_not_gets_a_problem_document(
    app: AuthMiddleware, authorization: str
) -> None:
    start, body = await ask(app, "/private", authorization=authorization)
    headers = dict(start["headers"])

    assert start["status"] == 401
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"www-authenticate"] == b"Bearer"
    assert int(headers[b"content-length"]) == len(body["body"])


@pytest.mark.parametrize("path", ["/", "/static/a.css"])
async def test_public_paths_need_no_login(app: AuthMiddleware, path: str) -> None:
    assert (await ask(app, path))[0]["status"] == 200


@pytest.mark.parametrize(
    "path", ["/private", "/static", "/staticky", "/static/../private", "//"]
)
async def test_what_only_looks_public_is_not(app: AuthMiddleware, path: str) -> None:
    assert (await ask(app, path))[0]["status"] == 401


async def test_a_scope_that_lacks_is_403(app: AuthMiddleware) -> None:
    start, body = await ask(app, "/forbidden", authorization=f"Bearer {TOKEN}")

    assert start["status"] == 403
    assert b"ext:nothing" in body["body"]


async def test_an_answer_that_has_begun_is_not_begun_again(
    app: AuthMiddleware,
) -> None:
    with pytest.raises(ForbiddenError):
        await ask(app, "/too-late", authorization=f"Bearer {TOKEN}")


async def test_a_websocket_is_closed_before_it_opens(app: AuthMiddleware) -> None:
    (message,) = await ask(app, "/private", kind="websocket")

    assert (message["type"], message["code"]) == ("websocket.close", 1008)


async def test_the_lifespan_goes_through() -> None:
    seen = []

    async def application(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        return {}

    unused: Any = None
    await AuthMiddleware(application, unused)({"type": "lifespan"}, nothing, nothing)

    assert seen == ["lifespan"]
