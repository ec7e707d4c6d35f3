"""A fake model server that costs little: every provider's stream, paced.

Every answer is the same `TEXT`: whole, at once, or streamed in 64 pieces, one for each
`--pace-ms`. Ollama's and Bedrock's addresses tell which; elsewhere the body does. It
checks no request: `tests/fakes/` has servers that do. `/calls` tells how many it had.
"""

import argparse
import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httptools
import uvloop

from tests.fakes.bedrock import chunk as bedrock_chunk

PIECES = [f"w{number:02} " for number in range(64)]
TEXT = "".join(PIECES)
MODEL = "bench"
CLAUDE = "claude-bench"
BEDROCK_MODEL = f"anthropic.{CLAUDE}"


@dataclass
class Answer:
    """Ready for the wire; the pieces go out one by one."""

    head: bytes
    pieces: Sequence[bytes]
    end: bytes

    @classmethod
    def made(
        cls, kind: str, start: bytes, pieces: Sequence[bytes], end: bytes
    ) -> "Answer":
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked"
        first, *rest = (_chunked(piece) for piece in pieces)
        return cls(
            f"{head}\r\n\r\n".encode(),
            [(_chunked(start) if start else b"") + first, *rest],
            _chunked(end) + _chunked(b""),
        )


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _openai() -> Answer:
    def event(choices: Sequence[Any], **more: Any) -> bytes:
        common = {
            "id": "chatcmpl-bench",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": MODEL,
            "system_fingerprint": "fp_bench",
        }
        return (
            b"data: %b\n\n"
            % json.dumps(
                {**common, "choices": choices, **more}, separators=(",", ":")
            ).encode()
        )

    def choice(delta: dict[str, Any], reason: str | None = None) -> list[Any]:
        told = {"logprobs": None, "finish_reason": reason}
        return [{"index": 0, "delta": delta, **told}]

    usage = {"prompt_tokens": 20, "completion_tokens": 64, "total_tokens": 84}
    end = event(choice({}, "stop")) + event([], usage=usage) + b"data: [DONE]\n\n"
    pieces = [event(choice({"content": piece})) for piece in PIECES]
    start = event(choice({"role": "assistant", "content": ""}))
    return Answer.made("text/event-stream", start, pieces, end)


def _messages(kind: str, wire: Callable[[Mapping[str, Any]], bytes]) -> Answer:
    """The events of Anthropic's Messages API, as `wire` puts each on the wire."""
    message = {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": CLAUDE,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 20, "output_tokens": 1},
    }
    block = {"type": "text", "text": ""}
    start = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
    ]
    pieces = [
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": piece},
        }
        for piece in PIECES
    ]
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    end = [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 64}},
        {"type": "message_stop"},
    ]
    return Answer.made(
        kind,
        b"".join(map(wire, start)),
        list(map(wire, pieces)),
        b"".join(map(wire, end)),
    )


def _event(event: Mapping[str, Any]) -> bytes:
    data = json.dumps(event, separators=(",", ":"))
    return f"event: {event['type']}\ndata: {data}\n\n".encode()


def _ollama() -> Answer:
    def line(text: str, **more: Any) -> bytes:
        told = {"model": MODEL, "created_at": "2026-11-20T00:00:00.000000Z"}
        said = {"message": {"role": "assistant", "content": text}, "done": False}
        return json.dumps({**told, **said, **more}).encode() + b"\n"

    figures = {"prompt_eval_count": 20, "eval_count": 64}
    end = line("", done=True, done_reason="stop", **figures)
    return Answer.made("application/x-ndjson", b"", [*map(line, PIECES)], end)


def _whole(body: Mapping[str, Any]) -> Answer:
    data = json.dumps(body, separators=(",", ":")).encode()
    head = f"content-type: application/json\r\ncontent-length: {len(data)}"
    return Answer(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode(), [], data)


_MESSAGE = {
    "id": "msg_bench",
    "type": "message",
    "role": "assistant",
    "model": CLAUDE,
    "content": [{"type": "text", "text": TEXT}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 20, "output_tokens": 64},
}
_COMPLETION = {
    "id": "chatcmpl-bench",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": TEXT},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 20, "completion_tokens": 64, "total_tokens": 84},
}
_WHOLE = {
    "/chat/completions": _whole(_COMPLETION),
    "/invoke": _whole(_MESSAGE),
    "/v1/messages": _whole(_MESSAGE),
}
_ANSWERS = {
    "/chat/completions": _openai(),
    "-response-stream": _messages("application/vnd.amazon.eventstream", bedrock_chunk),
    "/v1/messages": _messages("text/event-stream", _event),
    "/api/chat": _ollama(),
}
_LISTS = {
    "/api/tags": {"models": [{"name": MODEL, "model": MODEL, "digest": "sha256:b"}]},
    "/api/show": {"capabilities": ["completion"], "model_info": {}},
    "/models": {"object": "list", "data": [{"id": MODEL, "type": "model"}]},
}


class _Upstream(asyncio.Protocol):
    calls = 0
    """Of models, over all connections."""

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._path = ""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._path = ""
        self._body = b""

    def on_url(self, url: bytes) -> None:
        self._path += url.decode()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        streams = b'"stream":true' in self._body.replace(b" ", b"")
        for ending, answer in (_ANSWERS if streams else _ANSWERS | _WHOLE).items():
            if self._path.endswith(ending):
                _Upstream.calls += 1
                self._transport.write(answer.head)
                self._send(answer, 0, self._loop.time())
                return
        for ending, told in (_LISTS | {"/calls": self.calls}).items():
            if self._path.partition("?")[0].endswith(ending):
                body = json.dumps(told).encode()
                head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"
                self._transport.write(head % len(body) + body)
                return
        self._transport.close()

    def _send(self, answer: Answer, number: int, due: float) -> None:
        """On a fixed schedule, so that being late once delays nothing else."""
        if self._transport.is_closing():
            return
        if number == len(answer.pieces):
            self._transport.write(answer.end)
            return
        self._transport.write(answer.pieces[number])
        due += self._pace
        self._loop.call_at(due, self._send, answer, number + 1, due)


async def _serve(port: int, pace: float) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: _Upstream(pace), "127.0.0.1", port
    )
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pace-ms", type=float, default=5)
    options = parser.parse_args()
    uvloop.run(_serve(options.port, options.pace_ms / 1000))


if __name__ == "__main__":
    main()
