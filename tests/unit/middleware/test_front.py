import gc
import json
from collections.abc import Awaitable
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from app.core.config import LogSettings
from app.core.lag import LoopLag
from app.middleware.admission import Admission
from app.middleware.body_limit import BodyLimit
from app.middleware.cors import Cors
from app.middleware.front import Front, Verdict, Visit
from app.middleware.https import HttpsOnly
from app.middleware.request_context import RequestContext
from app.middleware.security_headers import SecurityHeaders
from tests.unit.middleware.asgi import Inner, ask, behind, make_scope, nothing


class Marks:
    """Notes what it sees in `seen`, and its name in a header of the answer."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self._name = name
        self._seen = seen

    def enter(self, visit: Visit) -> Verdict:
        self._seen.append(f"{self._name} in")
        visit.at_start.append(self._note)
        visit.at_end.append(lambda: self._seen.append(f"{self._name} out"))
        return None

    def _note(self, start: Message) -> None:
        self._seen.append(f"{self._name} start")
        start["headers"].append((b"x-passed", self._name.encode()))


class Refuses:
    def enter(self, visit: Visit) -> Verdict:
        del visit
        return PlainTextResponse("no", 418)


class Waits:
    def __init__(self, verdict: Response | None) -> None:
        self._verdict = verdict

    def enter(self, visit: Visit) -> Awaitable[Response | None]:
        return self._answered(visit)

    async def _answered(self, visit: Visit) -> Response | None:
        del visit
        return self._verdict


async def test_gates_are_passed_in_turn_and_left_the_other_way_round() -> None:
    seen: list[str] = []

    answer = await ask(behind(Marks("a", seen), Marks("b", seen)))

    assert answer.body == b"inner"
    assert seen == ["a in", "b in", "b start", "a start", "b out", "a out"]
    passed = [value for name, value in answer.headers if name == "x-passed"]
    assert passed == ["b", "a"]


@pytest.mark.parametrize("refuses", [Refuses(), Waits(PlainTextResponse("no", 418))])
async def test_who_is_refused_gets_no_further(refuses: Any) -> None:
    seen: list[str] = []
    inner = Inner()

    answer = await ask(behind(Marks("a", seen), refuses, Marks("b", seen), inner=inner))

    assert (answer.status, answer.body) == (418, b"no")
    assert answer.header("x-passed") == "a"
    assert seen == ["a in", "a start", "a out"]
    assert inner.scope is None


async def test_a_gate_may_wait_and_then_let_pass() -> None:
    assert (await ask(behind(Waits(None)))).body == b"inner"


async def test_of_headers_sent_twice_the_first_counts() -> None:
    scope = make_scope(headers=[(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])

    assert Visit(scope, nothing).headers == {b"a": b"1", b"b": b"2"}


async def test_what_nobody_has_foreseen_is_answered_with_all_headers() -> None:
    async def failing(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("the cause")

    seen: list[str] = []
    answer = await ask(behind(Marks("a", seen), inner=failing))

    assert answer.status == 500
    assert answer.header("x-passed") == "a"
    assert json.loads(answer.body)["code"] == "internal_error"
    assert "the cause" not in answer.body.decode()
    assert seen[-1] == "a out"


async def test_a_reply_that_fails_once_it_has_begun_is_left_to_the_server() -> None:
    async def failing(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("the cause")

    seen: list[str] = []
    with pytest.raises(RuntimeError):
        await ask(Front(failing, [Marks("a", seen)]))

    assert seen[-1] == "a out"


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("here.example", "https://here.example/chats?a=1"),
        ("here.example:80", "https://here.example/chats?a=1"),
        ("here.example:8000", "https://here.example:8000/chats?a=1"),
    ],
)
async def test_without_tls_one_is_led_to_it(host: str, place: str) -> None:
    app = behind(HttpsOnly())
    options: dict[str, Any] = {"path": "/chats", "query_string": b"a=1"}

    led = await ask(app, {"Host": host}, **options)
    there = await ask(app, {"Host": host}, scheme="https", **options)

    assert (led.status, led.header("location")) == (307, place)
    assert there.body == b"inner"


async def test_nothing_of_a_request_waits_for_the_garbage_collector() -> None:
    """What holds each other in a ring is found late, with all that it holds."""
    app = behind(
        RequestContext(LogSettings()),
        SecurityHeaders(hsts=False),
        Cors(),
        Admission(most=9, lag=LoopLag(9)),
        BodyLimit(limit=9, gateway_limit=9, file_limit=9, seconds=9),
    )
    await ask(app)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            await ask(app)
        left = gc.collect()
    finally:
        gc.enable()

    assert left < 10


async def test_a_client_that_has_left_is_no_error() -> None:
    async def left(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ClientDisconnect

    answer = await ask(behind(inner=left))

    assert (answer.status, answer.body) == (499, b"")
