"""What the fake model servers have in common: real HTTP on a loopback port.

In a test: `async with FakeBedrock() as server: ... server.url`. As a process:
`python -m tests.fakes.bedrock --port 9001`, steered by `POST /_plan` (JSON of
`FaultPlan`'s fields) and watched by `GET /_requests`.
"""

import argparse
import asyncio
import json
import math
import re
import signal
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, get_args

from aiohttp import ClientConnectionError, web

from tests.fakes.faults import Fault, FaultPlan, pieces


@dataclass
class Call:
    """A request to a model. `outcome` is told when `ended` is set."""

    path: str
    headers: dict[str, str]
    body: Any
    peer: Any = None  # the client's address, the same for calls over one connection
    outcome: str = (
        "running"  # then: complete, refused, dropped (by the client), a fault
    )
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, outcome: str) -> None:
        self.outcome = outcome
        self.ended.set()


@dataclass
class Script:
    """An answer, cut up as it goes over the wire."""

    content_type: str
    start: Sequence[bytes]
    chunks: Sequence[bytes]
    end: Sequence[bytes]
    """Its last element is what `missing_end` leaves out."""
    exception: bytes
    damaged: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class FakeServer:
    """Subclasses add their routes to `self.app` and answer with `self.play`."""

    def __init__(self, plan: FaultPlan | None = None) -> None:
        self.plan = plan or FaultPlan()
        self.calls: list[Call] = []
        self.called = asyncio.Event()
        self.app = web.Application(client_max_size=64 * 2**20)
        self.app.router.add_post("/_plan", self._set_plan)
        self.app.router.add_get("/_requests", self._tell_requests)
        self._runner = web.AppRunner(
            self.app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        self._closing = asyncio.Event()
        self.url = ""

    async def start(self, port: int = 0) -> None:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        self._closing.set()
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def record(self, request: web.Request, body: Any) -> Call:
        peer = request.transport and request.transport.get_extra_info("peername")
        call = Call(request.raw_path, dict(request.headers), body, peer)
        self.calls.append(call)
        self.called.set()
        return call

    async def play(
        self, request: web.Request, call: Call, fault: Fault, script: Script
    ) -> web.StreamResponse:
        headers = {"Content-Type": script.content_type, **script.headers}
        response = web.StreamResponse(headers=headers)
        try:
            await response.prepare(request)
            if await self._send(response, fault, script):
                await response.write_eof()
            elif request.transport:
                request.transport.close()
        except (asyncio.CancelledError, ClientConnectionError):
            call.end("dropped")
            raise
        call.end("complete" if fault == "none" else fault)
        return response

    async def _send(
        self, response: web.StreamResponse, fault: Fault, script: Script
    ) -> bool:
        """Whether the body ends properly."""
        for frame in script.start:
            await response.write(frame)
        strikes = min(self.plan.at_chunk, len(script.chunks) - 1)
        for number, chunk in enumerate(script.chunks):
            if self.plan.chunk_delay:
                await asyncio.sleep(self.plan.chunk_delay)
            if number == strikes and fault in {"cut", "stall"}:
                if fault == "stall":
                    await self._closing.wait()
                await response.write(chunk[: len(chunk) // 2])
                return False
            if number == strikes and fault in {"midstream_exception", "bad_crc"}:
                broken = script.damaged if fault == "bad_crc" else script.exception
                await response.write(broken)
                return True
            await response.write(chunk)
        for frame in script.end[:-1] if fault == "missing_end" else script.end:
            await response.write(frame)
        return True

    async def _set_plan(self, request: web.Request) -> web.Response:
        try:
            self.plan.update(await request.json())
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({})

    async def _tell_requests(self, _request: web.Request) -> web.Response:
        names = ("path", "headers", "body", "outcome")
        calls = [{name: getattr(call, name) for name in names} for call in self.calls]
        return web.json_response(calls)


def whole(answer: Any, *, exception: Any) -> Script:
    """An answer that is not streamed; `exception` may come in its place."""
    body = json.dumps(answer, ensure_ascii=False).encode()
    half = len(body) // 2
    return Script(
        content_type="application/json",
        start=[],
        chunks=[body[:half]],
        end=[body[half:]],
        exception=json.dumps(exception).encode(),
        damaged=body[:half],
    )


def relevance_of(query: str, text: str) -> float:
    """How much of a question's words a text has, 0 to 1."""
    words = set(re.findall(r"\w+", query.lower()))
    return len(words & set(re.findall(r"\w+", text.lower()))) / max(len(words), 1)


def ranked(
    query: str,
    documents: Sequence[str],
    relevance: Callable[[str, str], float] = relevance_of,
) -> list[dict[str, Any]]:
    """Each document's place and score, the best first, as a reranker tells them."""
    told = [
        {"index": place, "relevance_score": relevance(query, text)}
        for place, text in enumerate(documents)
    ]
    return sorted(told, key=lambda one: -one["relevance_score"])


def vector_of(text: Any, length: int) -> list[float]:
    """A vector of a text or of its tokens, which is another one for any other."""
    seed = zlib.crc32(json.dumps(text).encode())
    numbers = [round(math.sin(seed + number), 7) for number in range(16)]
    return (numbers * (length // 16 + 1))[:length]


def text_of(content: Any) -> str:
    """The text of a message's content, a string or blocks."""
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content or ())


def reply_pieces(plan: FaultPlan, messages: Sequence[Any], go_on: str) -> list[str]:
    dialogue = [(m["role"], text_of(m["content"])) for m in messages]
    return pieces(plan.answer(dialogue, go_on=go_on))


def cut_at(words: Sequence[str], stops: Sequence[str]) -> tuple[list[str], str | None]:
    """The words before the first of these sequences; and which that is, if any."""
    text = "".join(words)
    found = [(at, stop) for stop in stops if (at := text.find(stop)) >= 0]
    if not found:
        return list(words), None
    at, stop = min(found)
    return pieces(text[:at]), stop


def alternating(roles: Sequence[str]) -> bool:
    """Whether user and assistant take turns, the user first."""
    turns = ("user", "assistant")
    return all(role == turns[number % 2] for number, role in enumerate(roles))


def main(server: type[FakeServer]) -> None:
    """Run a fake as a process, until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--chunk-delay", type=float, default=0)
    parser.add_argument("--words", type=int, default=FaultPlan.words)
    parser.add_argument("--at-chunk", type=int, default=FaultPlan.at_chunk)
    parser.add_argument("--text", default="")
    parser.add_argument(
        "--fault",
        dest="faults",
        action="append",
        default=[],
        choices=get_args(Fault),
        help="for the next call; may be given several times",
    )
    options = vars(parser.parse_args())
    port = options.pop("port")
    asyncio.run(_serve(server, FaultPlan(**options), port))


async def _serve(server: type[FakeServer], plan: FaultPlan, port: int) -> None:
    stopped = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    fake = server(plan)
    await fake.start(port)
    print(f"listening on {fake.url}", flush=True)  # noqa: T201 - tests wait for it
    await stopped.wait()
    await fake.close()
