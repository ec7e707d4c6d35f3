"""What our connection does otherwise than uvicorn's; e2e/test_hostile has the rest."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from app.cli.connection import Connection
from app.core.visitor import Visitor

KEEP_ALIVE = 0.3
GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n"


class App:
    """Answers with these messages, or raises what is among them."""

    def __init__(self, *messages: Message | Exception) -> None:
        self._messages = messages
        limits = SimpleNamespace(body_seconds=5)
        settings = SimpleNamespace(limits=limits)
        self.state = SimpleNamespace(runtime=SimpleNamespace(settings=settings))

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        for message in self._messages:
            if isinstance(message, Exception):
                raise message
            await send(message)


def start(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [*headers]}


def body(text: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": text, "more_body": more}


def length(number: int) -> tuple[bytes, bytes]:
    return (b"Content-Length", b"%d" % number)


@asynccontextmanager
async def connected(
    app: App,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = Config(app, timeout_keep_alive=KEEP_ALIVE, log_config=None)  # type: ignore[arg-type]  # seconds may be parts of one
    config.load()
    config.loaded_app = app
    state = ServerState()
    app.state.connections = state.connections
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(config, state, {}), "127.0.0.1", 0
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        yield reader, writer
        writer.close()


async def raw(*messages: Message | Exception, sent: bytes = GET) -> bytes:
    """All that comes until the connection is closed."""
    async with connected(App(*messages)) as (reader, writer):
        writer.write(sent)
        return await asyncio.wait_for(reader.read(), 5)


class TestAnswers:
    async def test_one_with_a_length(self) -> None:
        head, _, text = (
            await raw(start(length(5), (b"x-a", b"1")), body(b"hello"))
        ).partition(b"\r\n\r\n")

        assert head.splitlines() == [
            b"HTTP/1.1 200 OK", b"content-length: 5", b"x-a: 1",
        ]  # fmt: skip
        assert text == b"hello"

    async def test_one_without_goes_in_chunks(self) -> None:
        answer = await raw(
            start(), body(b"he", more=True), body(b"", more=True), body(b"llo")
        )

        assert b"transfer-encoding: chunked\r\n" in answer
        assert answer.endswith(b"\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")

    @pytest.mark.parametrize("status", [204, 304])
    async def test_some_have_no_body(self, status: int) -> None:
        answer = await raw(start(status=status), body(b""))

        assert answer.endswith(b"\r\n\r\n")
        assert b"transfer-encoding" not in answer

    async def test_of_a_head_alone(self) -> None:
        answer = await raw(
            start(length(5)), body(b"hello"), sent=GET.replace(b"GET", b"HEAD")
        )

        assert b"content-length: 5\r\n" in answer
        assert answer.endswith(b"\r\n\r\n")

    async def test_who_asks_for_the_end_gets_it(self) -> None:
        sent = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

        answer = await raw(start(length(0)), body(b""), sent=sent)

        assert b"connection: close\r\n" in answer

    async def test_an_answer_may_end_the_connection(self) -> None:
        answer = await raw(
            start(length(0), (b"connection", b"close")), body(b""), sent=2 * GET
        )

        assert answer.count(b"HTTP/1.1") == 1
        assert answer.count(b"connection: close") == 1

    async def test_requests_sent_at_once_are_answered_in_turn(self) -> None:
        answer = await raw(start(length(1)), body(b"a"), sent=3 * GET)

        assert answer.count(b"\r\n\r\na") == 3


class TestWrongAnswers:
    @pytest.mark.parametrize(
        "header", [(b"x\r\ny", b"1"), (b"x", b"1\r\ny: 2"), (b"x", b"1\0")]
    )
    async def test_a_header_that_would_be_two_is_never_sent(self, header: Any) -> None:
        answer = await raw(start(length(0), header), body(b""))

        assert b"\ny" not in answer
        assert not answer.startswith(b"HTTP/1.1 200")

    @pytest.mark.parametrize("text", [b"hell", b"hello!"])
    async def test_a_body_of_another_length_ends_the_connection(
        self, text: bytes
    ) -> None:
        answer = await raw(start(length(5)), body(text), sent=2 * GET)

        assert answer == b""

    async def test_a_body_that_ends_too_early_does_so_after_its_head(self) -> None:
        messages = start(length(5)), body(b"he", more=True), body(b"l")

        answer = await raw(*messages, sent=2 * GET)

        assert answer.count(b"HTTP/1.1") == 1
        assert answer.endswith(b"\r\n\r\nhe")

    @pytest.mark.parametrize(
        "messages",
        [
            (body(b"a"),),
            (start(), start()),
            (start(length(0)), body(b""), body(b"")),
            ({"type": "http.nonsense"},),
        ],
    )
    async def test_messages_out_of_turn(self, messages: tuple[Message, ...]) -> None:
        answer = await raw(*messages)

        assert answer.count(b"HTTP/1.1") <= 1

    async def test_one_that_fails_midway_is_cut(self) -> None:
        answer = await raw(start(), body(b"a", more=True), ValueError(), sent=2 * GET)

        assert answer.endswith(b"1\r\na\r\n")


class Listening(App):
    """Reads its requests to the end before it answers, and knows their visitors."""

    def __init__(self, *messages: Message) -> None:
        super().__init__(*messages)
        self.visitors: list[Visitor] = []
        self.begun, self.left = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visitor = scope["visitor"]
        visitor.on_leave = self.left.set
        self.visitors.append(visitor)
        while (await receive()).get("more_body"):
            pass
        self.begun.set()
        if scope["method"] == "POST":
            await super().__call__(scope, receive, send)
        else:
            await self.left.wait()


class TestVisitors:
    async def test_a_request_that_came_in_one_piece_has_arrived(self) -> None:
        app = Listening(start(length(0)), body(b""))
        async with connected(app) as (reader, writer):
            for pieces in ([POST + b"ab"], [POST, b"ab"]):
                for piece in pieces:
                    writer.write(piece)
                    await asyncio.sleep(0.05)  # it is read by itself
                await reader.readuntil(b"\r\n\r\n")

        assert [visitor.arrived for visitor in app.visitors] == [True, False]

    @pytest.mark.parametrize("requests", [1, 2])
    async def test_who_leaves_is_told_to_the_request_that_is_answered(
        self, requests: int
    ) -> None:
        app = Listening()
        async with connected(app) as (_, writer):
            writer.write(requests * GET)
            await app.begun.wait()
        await asyncio.wait_for(app.left.wait(), 5)

        assert [visitor.left for visitor in app.visitors] == [True]

    async def test_who_has_their_answer_leaves_nothing(self) -> None:
        app = Listening(start(length(0)), body(b""))
        async with connected(app) as (reader, writer):
            writer.write(POST + b"ab")
            await reader.readuntil(b"\r\n\r\n")

        assert not app.left.is_set()


async def test_a_head_behind_a_large_body_is_not_taken_for_a_long_one() -> None:
    app = Listening(start(length(0)), body(b""))
    large = POST.replace(b"2", b"200000") + b"a" * 200_000
    async with connected(app) as (reader, writer):
        writer.write(POST + b"ab")
        await reader.readuntil(b"\r\n\r\n")
        [connection] = app.state.connections
        connection.data_received(large + POST[:20])  # as one piece, however sockets are
        await reader.readuntil(b"\r\n\r\n")
        writer.write(POST[20:] + b"ab")
        second = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)

    assert second.startswith(b"HTTP/1.1 200")


class TestIdle:
    async def test_a_connection_that_nobody_uses_is_closed(self) -> None:
        loop = asyncio.get_running_loop()
        async with connected(App(start(length(1)), body(b"a"))) as (reader, writer):
            for _ in range(3):  # each begins the time anew
                begun = loop.time()
                writer.write(GET)
                await reader.readuntil(b"\r\n\r\na")
                await asyncio.sleep(KEEP_ALIVE / 2)
            await asyncio.wait_for(reader.read(), 5)

        assert loop.time() - begun >= KEEP_ALIVE * 0.9
