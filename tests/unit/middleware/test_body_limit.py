"""F11: no more of a body is read than the limit."""

import asyncio
import json

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.middleware.body_limit import BodyLimit
from app.middleware.front import Front
from tests.unit.middleware.asgi import Inner, ask, behind, make_scope, nothing

LIMIT = 1000


def limited(inner: ASGIApp, *, seconds: float = 60) -> Front:
    gate = BodyLimit(
        limit=LIMIT, gateway_limit=2 * LIMIT, file_limit=3 * LIMIT, seconds=seconds
    )
    return behind(gate, inner=inner)


async def test_a_body_of_the_limit_passes_whole() -> None:
    inner = Inner()

    answer = await ask(
        limited(inner),
        {"Content-Length": str(LIMIT)},
        chunks=[b"a" * (LIMIT - 1), b"b"],
    )

    assert answer.status == 200
    assert inner.body == b"a" * (LIMIT - 1) + b"b"


async def test_calls_by_the_gateway_have_a_limit_of_their_own() -> None:
    longer = {"Content-Length": str(LIMIT + 1)}

    answers = [
        await ask(limited(Inner()), longer, path=path)
        for path in ("/v1/messages", "/v1", "/v10/messages", "/api/v1/chats")
    ]

    assert [answer.status for answer in answers] == [200, 413, 413, 413]


async def test_uploads_of_files_have_a_limit_of_their_own() -> None:
    longer = {"Content-Length": str(3 * LIMIT)}
    asked = [("POST", "/api/v1/files"), ("PATCH", "/api/v1/files"),
             ("POST", "/api/v1/files/x"), ("POST", "/v1/files")]  # fmt: skip

    answers = [
        await ask(limited(Inner()), longer, method=method, path=path)
        for method, path in asked
    ]

    assert [answer.status for answer in answers] == [200, 413, 413, 413]


async def test_a_body_that_says_it_is_longer_is_not_even_read() -> None:
    inner = Inner()

    answer = await ask(limited(inner), {"Content-Length": str(LIMIT + 1)})

    assert answer.status == 413
    assert answer.header("content-type") == "application/problem+json"
    assert json.loads(answer.body)["code"] == "payload_too_large"
    assert inner.scope is None


async def test_reading_on_beyond_the_limit_fails() -> None:
    answer = await ask(limited(Inner()), chunks=[b"a" * LIMIT, b"b"])

    assert answer.status == 413


async def test_a_body_that_goes_on_under_an_answer_counts_as_a_cut_connection() -> None:
    seen: list[str] = []

    async def streaming(_scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not seen or seen[-1] != "http.disconnect":
            seen.append((await receive())["type"])

    await ask(limited(streaming), chunks=[b"a" * LIMIT, b"b", b"c"])

    assert seen == ["http.request", "http.disconnect"]


async def test_other_scopes_pass_untouched() -> None:
    seen: list[Scope] = []

    async def inner(scope: Scope, receive: Receive, _send: Send) -> None:
        seen.append(scope)
        assert receive is nothing

    async def send(_message: Message) -> None: ...

    await limited(inner)(make_scope(type="lifespan"), nothing, send)

    assert seen[0]["type"] == "lifespan"


async def test_a_body_that_does_not_come_is_408() -> None:
    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    started: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            started.append(message["status"])

    await limited(Inner(), seconds=0.01)(make_scope(), receive, send)

    assert started == [408]


async def test_what_comes_after_the_body_has_its_time() -> None:
    """Streams wait for the end of the connection."""
    waited = asyncio.Event()

    async def streaming(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        await receive()
        waited.set()

    async def receive() -> Message:
        if not messages:
            await asyncio.sleep(0.05)
            return {"type": "http.disconnect"}
        return messages.pop()

    async def send(_message: Message) -> None: ...

    messages = [{"type": "http.request", "body": b"", "more_body": False}]
    await limited(streaming, seconds=0.01)(make_scope(), receive, send)

    assert waited.is_set()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, identity", "x"])
async def test_a_compressed_body_is_not_even_read(coding: str) -> None:
    inner = Inner()

    answer = await ask(limited(inner), {"Content-Encoding": coding})

    assert answer.status == 415
    assert json.loads(answer.body)["code"] == "unsupported_media_type"
    assert inner.scope is None


async def test_identity_is_no_compression() -> None:
    assert (await ask(limited(Inner()), {"Content-Encoding": "Identity"})).status == 200
