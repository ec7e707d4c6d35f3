"""F7: past capacity, the answer is a quick no."""

import asyncio
import json

from starlette.types import Receive, Scope, Send

from app.core.lag import LoopLag
from app.middleware.admission import Admission
from app.middleware.front import PROBES
from tests.unit.middleware.asgi import Inner, ask, behind


class Slow:
    """Answers begin when `go` is set, and end when `end` is."""

    def __init__(self) -> None:
        self.go, self.end = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] != "/quick":
            await self.go.wait()
        await send({"type": "http.response.start", "status": 200})
        if scope["path"] == "/stream":
            await self.end.wait()
        await send({"type": "http.response.body", "body": b"all of it"})


async def test_beyond_the_limit_it_is_503_and_the_others_go_on() -> None:
    slow = Slow()
    gate = Admission(most=3, lag=LoopLag(1))
    app = behind(gate, inner=slow)
    tasks = [asyncio.create_task(ask(app)) for _ in range(10)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    refused = [t.result() for t in tasks if t.done()]

    assert [a.status for a in refused] == [503] * 7
    assert refused[0].header("retry-after") == "2"
    assert json.loads(refused[0].body)["code"] == "overloaded"
    slow.go.set()
    answers = await asyncio.gather(*tasks)
    assert [a.status for a in answers].count(200) == 3
    assert (await ask(app)).status == 200


async def test_a_stream_counts_until_it_begins() -> None:
    slow = Slow()
    slow.go.set()
    gate = Admission(most=1, lag=LoopLag(1))
    app = behind(gate, inner=slow)
    streams = [asyncio.create_task(ask(app, path="/stream")) for _ in range(1)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert (await ask(app)).status == 200
    slow.end.set()
    assert [a.body for a in await asyncio.gather(*streams)] == [b"all of it"]
    assert gate._here == 0


async def test_probes_are_answered_always() -> None:
    slow = Slow()
    lag = LoopLag(1)
    gate = Admission(most=1, lag=lag)
    app = behind(gate, inner=slow)
    taken = asyncio.create_task(ask(app))
    await asyncio.sleep(0)
    slow.go.set()
    for _ in range(10):
        lag.note(9)

    for path in sorted(PROBES):
        assert (await ask(app, path=path)).status == 200
    assert (await ask(app)).status == 503
    await taken


async def test_a_loop_that_stays_late_takes_no_more() -> None:
    lag = LoopLag(0.25)
    gate = Admission(most=100, lag=lag)
    app = behind(gate, inner=Inner())
    for _ in range(10):
        lag.note(0.3)
    late = await ask(app)
    lag.note(0.1)

    assert late.status == 503
    assert (await ask(app)).status == 200


async def test_places_come_back_whatever_happens() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError

    gate = Admission(most=2, lag=LoopLag(1))
    app = behind(gate, inner=broken)
    for _ in range(5):
        assert (await ask(app)).status == 500

    assert gate._here == 0


async def test_bodies_on_their_way_leave_half_of_the_places() -> None:
    """F11: slow senders do not keep the others out."""
    done = asyncio.Event()

    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/slow":
            await done.wait()
            await receive()
        await send({"type": "http.response.start", "status": 200})

    gate = Admission(most=4, lag=LoopLag(1))
    app = behind(gate, inner=reading)
    tasks = [
        asyncio.create_task(ask(app, path="/slow", chunks=[b"a", b"b"]))
        for _ in range(2)
    ]
    await asyncio.sleep(0)

    assert (await ask(app, path="/slow", chunks=[b"a", b"b"])).status == 503
    assert (await ask(app, chunks=[b"all at once"])).status == 200
    done.set()
    await asyncio.gather(*tasks)
    assert (gate._here, gate._arriving) == (0, 0)
