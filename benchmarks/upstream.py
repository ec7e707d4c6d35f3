"""A fake model server that costs little: OpenAI's and Bedrock's streams, paced.

Every answer is the same `TEXT` in 64 pieces, one for each `--pace-ms`. It checks no
request: `tests/fakes/` has servers that do.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httptools
import uvloop

from tests.fakes.bedrock import chunk as bedrock_chunk

PIECES = [f"w{number:02} " for number in range(64)]
TEXT = "".join(PIECES)
MODEL = "bench"
BEDROCK_MODEL = "anthropic.claude-bench"


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


def _bedrock() -> Answer:
    message = {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": BEDROCK_MODEL,
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
        "application/vnd.amazon.eventstream",
        b"".join(map(bedrock_chunk, start)),
        list(map(bedrock_chunk, pieces)),
        b"".join(map(bedrock_chunk, end)),
    )


_ANSWERS = {"/chat/completions": _openai(), "-response-stream": _bedrock()}
_MODELS = json.dumps({"object": "list", "data": [{"id": MODEL}]}).encode()
_OTHER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(_MODELS), _MODELS)


class _Upstream(asyncio.Protocol):
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

    def on_url(self, url: bytes) -> None:
        self._path += url.decode()

    def on_message_complete(self) -> None:
        for ending, answer in _ANSWERS.items():
            if self._path.endswith(ending):
                self._transport.write(answer.head)
                self._send(answer, 0, self._loop.time())
                return
        self._transport.write(_OTHER)

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
