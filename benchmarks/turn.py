"""What a chat turn costs beside a bare pass-through of the same upstream.

    python -m benchmarks.turn [--rounds 5] [--provider openai] [--streams 16]
        [--database sqlite|postgresql] [--json]

A turn is what a user does: POST a message, read its events to the last. The answer
comes in 64 pieces, one for each 5 ms. The CPU time is of all that the server does in
the round (requests, checkpoints, the final store), for each piece; a PostgreSQL server
is not a part of it. The streams begin
spread over the length of a turn, as users do.
"""

import argparse
import base64
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

from app.integrations.llm.eventstream import EventStreamReader
from benchmarks.harness import (
    IncompleteError,
    Load,
    Measured,
    Report,
    Server,
    Workplace,
    call,
    paired,
    parser,
    quantile,
    register,
    request,
)
from benchmarks.upstream import BEDROCK_MODEL, CLAUDE, MODEL, PIECES, TEXT

PACE_MS = 5.0
TURNS = 4
"""Of each stream in a round."""

STREAMS = (1, 16, 32)
GATES = {("openai", 16): 2.0}
"""The most CPU time for a piece, in pass-throughs."""

MODELS = {
    "openai": f"openai/{MODEL}",
    "bedrock": f"bedrock/{BEDROCK_MODEL}",
    "anthropic": f"anthropic/{CLAUDE}",
    "ollama": f"ollama/{MODEL}",
}
PATHS = {
    "openai": "/v1/chat/completions",
    "bedrock": f"/model/{BEDROCK_MODEL}/invoke-with-response-stream",
    "anthropic": "/v1/messages",
    "ollama": "/api/chat",
}
_MARKS = {"openai": b'"content":"w', "anthropic": b"text_delta"}
"""How the first piece of a plain answer is told; elsewhere it comes first of all."""

QUESTION = "Say sixty-four words to the benchmark, please."


def settings(upstream: str) -> dict[str, str]:
    """Workroom's variables for that upstream."""
    return {
        "OPENAI_BASE_URL": f"{upstream}/v1",
        "OPENAI_MODELS": MODEL,
        "AWS_REGION": "us-east-1",
        "AWS_BEARER_TOKEN_BEDROCK": "key",
        "BEDROCK_BASE_URL": upstream,
        "BEDROCK_MODELS": BEDROCK_MODEL,
        "ANTHROPIC_API_KEY": "key",
        "ANTHROPIC_BASE_URL": upstream,
        "ANTHROPIC_MODELS": CLAUDE,
        "OLLAMA_BASE_URL": upstream,
    }


def plain_load(server: Server, provider: str, streams: int, mark: bytes) -> Load:
    body = {
        "model": MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": QUESTION}],
    }
    turn = request("POST", PATHS[provider], body=body)
    return Load(
        server,
        [itertools.repeat(turn, TURNS) for _ in range(streams)],
        check=_CHECKS[provider],
        mark=mark,
        spread=_turn_seconds(),
    )


def our_load(server: Server, token: str, provider: str, streams: int) -> Load:
    """Each stream has a chat of its own, with a title, so that no job makes one."""
    form = {"title": "A benchmark", "model": MODELS[provider]}
    url = f"{server.url}/api/v1/chats"
    chats = [call(url, form, token)["id"] for _ in range(streams)]
    return Load(
        server,
        [itertools.repeat(message(chat, token), TURNS) for chat in chats],
        check=check_turn,
        mark=b"event: delta",
        spread=_turn_seconds(),
    )


def message(chat: str, token: str) -> bytes:
    path = f"/api/v1/chats/{chat}/messages"
    return request("POST", path, token=token, body={"content": QUESTION})


def check_turn(body: bytes) -> None:
    """Every piece came as a delta, and the stored message holds them all."""
    text = ""
    for event in body.split(b"\n\n"):
        name, _, data = event.partition(b"\n")
        if name == b"event: delta":
            text += orjson.loads(data[data.index(b"data: ") + 6 :])["text"]
        elif name == b"event: message_stop":
            final = orjson.loads(data[data.index(b"data: ") + 6 :])["message"]
            if final["status"] == "complete" and text == final["text"] == TEXT:
                return
    raise IncompleteError(body[-500:])


def check_openai(body: bytes) -> None:
    *events, end, rest = body.split(b"\n\n")
    chunks = [orjson.loads(event.removeprefix(b"data: ")) for event in events]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    text = "".join(delta.get("content", "") for delta in deltas)
    if text != TEXT or end != b"data: [DONE]" or rest:
        raise IncompleteError(body[-500:])


def _check_bedrock(body: bytes) -> None:
    _check_messages(
        [
            orjson.loads(base64.b64decode(orjson.loads(payload)["bytes"]))
            for _, payload in EventStreamReader().feed(body)
        ],
        body,
    )


def check_anthropic(body: bytes) -> None:
    events = body.removesuffix(b"\n\n").split(b"\n\n")
    _check_messages([orjson.loads(e.partition(b"data: ")[2]) for e in events], body)


def _check_messages(events: Sequence[Any], body: bytes) -> None:
    text = "".join(event.get("delta", {}).get("text", "") for event in events)
    if text != TEXT or events[-1]["type"] != "message_stop":
        raise IncompleteError(body[-500:])


def _check_ollama(body: bytes) -> None:
    lines = [orjson.loads(line) for line in body.splitlines()]
    text = "".join(line["message"]["content"] for line in lines)
    if text != TEXT or not lines[-1]["done"]:
        raise IncompleteError(body[-500:])


_CHECKS: dict[str, Callable[[bytes], None]] = {
    "openai": check_openai,
    "bedrock": _check_bedrock,
    "anthropic": check_anthropic,
    "ollama": _check_ollama,
}


def _turn_seconds() -> float:
    return len(PIECES) * PACE_MS / 1000


def measure(
    options: argparse.Namespace, plain: Server, ours: Server, token: str
) -> Iterator[tuple[str, int, list[tuple[Measured, ...]]]]:
    for provider in options.provider or MODELS:
        mark = _MARKS.get(provider, b"")
        for streams in options.streams or STREAMS:
            sides = (
                lambda p=provider, s=streams, m=mark: plain_load(plain, p, s, m).run(),
                lambda p=provider, s=streams: our_load(ours, token, p, s).run(),
            )
            yield provider, streams, list(paired(options.rounds, *sides))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--provider", choices=MODELS, action="append")
    arguments.add_argument("--streams", type=int, action="append")
    arguments.add_argument(
        "--database", choices=("sqlite", "postgresql"), default="sqlite"
    )
    options = arguments.parse_args()
    report = Report(options)
    with Workplace() as place:
        upstream = place.upstream(PACE_MS)
        plain = place.plain("passthrough", UPSTREAM=upstream)
        url = place.database(options.database)
        ours = place.workroom(DATABASE_URL=url, **settings(upstream))
        _, token = register(ours)
        for provider, streams, rounds in measure(options, plain, ours, token):
            _tell(report, f"{provider}, {streams} streams", rounds,
                  GATES.get((provider, streams)))  # fmt: skip
    report.end()


def _tell(
    report: Report,
    what: str,
    rounds: list[tuple[Measured, ...]],
    gate: float | None,
) -> None:
    plain, ours = zip(*rounds, strict=True)

    def compare(
        name: str, figure: Callable[[Measured], float], gate: float | None = None
    ) -> None:
        sides = ([figure(m) for m in side] for side in (plain, ours))
        report.compare(f"{what}: {name}", *sides, at_most=gate)

    compare("CPU us/piece", lambda m: m.cpu_each / len(PIECES) * 1e6, gate)
    compare("first token ms, p50", lambda m: quantile(m.first, 0.5) * 1e3)
    compare("first token ms, p99", lambda m: quantile(m.first, 0.99) * 1e3)
    compare("whole turn ms, p99", lambda m: quantile(m.took, 0.99) * 1e3)


if __name__ == "__main__":
    main()
