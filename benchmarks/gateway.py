"""A call by the gateway beside a bare pass-through of the same upstream.

    python -m benchmarks.gateway [--rounds 5] [--only whole] [--only streams] [--json]

The pass-through is raw ASGI on uvicorn with aiohttp: it knows no key and counts
nothing. Ours has all on: an API key with limits, credits, the message log, metrics and
a line for every request. Whole answers come from an upstream that answers at once; a
stream is 64 pieces, one for each 5 ms, and its CPU time is for each piece, the request
included. With LITELLM set to the `litellm` command of an environment that has its
proxy, that is measured, too.
"""

import argparse
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from benchmarks.harness import (
    LITELLM_KEY,
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
from benchmarks.turn import (
    MODELS,
    PACE_MS,
    check_anthropic,
    check_openai,
    settings,
)
from benchmarks.upstream import MODEL, PIECES, TEXT

PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
SECONDS = 2.0
"""Of each side in a round of whole answers."""
STREAMS = 16
TURNS = 4
LIMITS = {"requests_per_minute": 10**8, "tokens_per_minute": 10**9,
          "daily_credit_limit": 10**12, "models": ["*"]}  # fmt: skip
"""Of the key: kept, and so they cost what they cost, but nobody gets to them."""

CASES = (
    ("openai", "openai", 1.3),
    ("anthropic", "anthropic", 1.3),
    ("anthropic", "bedrock", 2.5),
    ("openai", "anthropic", 2.5),
    ("openai", "bedrock", 2.5),
    ("anthropic", "openai", 2.5),
    ("openai", "ollama", 2.5),
)
"""The client's format, the provider, and the most CPU for a piece, in pass-throughs.

Bedrock sends Anthropic's events in frames of its own, with checksums and base64: what
takes them out of these is a translation, too.
"""

MARKS = {"openai": b'"content":"w', "anthropic": b"text_delta"}


def body(model: str, *, stream: bool) -> dict[str, Any]:
    question = "Say sixty-four words to the benchmark, please."
    return {
        "model": model,
        "stream": stream,
        "max_tokens": 256,
        "messages": [{"role": "user", "content": question}],
    }


def check_whole(answer: bytes) -> None:
    said = orjson.loads(answer)
    text = (
        said["choices"][0]["message"]["content"]
        if "choices" in said
        else said["content"][0]["text"]
    )
    if text != TEXT:
        raise IncompleteError(answer[:500])


CHECKS: dict[str, Callable[[bytes], None]] = {
    "openai": check_openai,
    "anthropic": check_anthropic,
}


def whole(
    server: Server, form: str, model: str, key: str, connections: int
) -> Callable[[], Measured]:
    sent = request("POST", PATHS[form], token=key, body=body(model, stream=False))
    streams = [itertools.repeat(sent)] * connections
    return lambda: Load(server, streams, check=check_whole, seconds=SECONDS).run()


def streamed(server: Server, form: str, model: str, key: str) -> Callable[[], Measured]:
    sent = request("POST", PATHS[form], token=key, body=body(model, stream=True))
    spread = len(PIECES) * PACE_MS / 1000
    return lambda: Load(
        server,
        [itertools.repeat(sent, TURNS) for _ in range(STREAMS)],
        check=CHECKS[form],
        mark=MARKS[form],
        spread=spread,
    ).run()


def new_key(server: Server) -> str:
    return new_key_of(server, register(server)[1])


def new_key_of(server: Server, token: str) -> str:
    made = call(f"{server.url}/api/v1/apikeys", {"name": "bench", **LIMITS}, token)
    return str(made["key"])


def measure_whole(
    report: Report, options: argparse.Namespace, place: Workplace
) -> None:
    upstream = place.upstream(0)
    plain = place.plain("passthrough", UPSTREAM=upstream)
    ours = place.workroom(**settings(upstream))
    key = new_key(ours)
    litellm = os.environ.get("LITELLM")
    others = [place.litellm(litellm, upstream, MODEL)] if litellm else []
    for connections in (1, 32):
        sides = [
            whole(plain, "openai", MODEL, "", connections),
            whole(ours, "openai", MODELS["openai"], key, connections),
            *(whole(o, "openai", MODEL, LITELLM_KEY, connections) for o in others),
        ]
        rounds = list(paired(options.rounds, *sides))
        _tell_whole(report, connections, rounds)
    for form, provider in (("anthropic", "bedrock"), ("openai", "bedrock")):
        sides = [
            whole(plain, "openai", MODEL, "", 32),
            whole(ours, form, MODELS[provider], key, 32),
        ]
        rounds = list(paired(options.rounds, *sides))
        bare, workroom = zip(*rounds, strict=True)
        report.compare(
            f"whole, {form} to {provider}: requests/s, 32",
            [m.rate for m in bare],
            [m.rate for m in workroom],
        )


def _tell_whole(
    report: Report, connections: int, rounds: list[tuple[Measured, ...]]
) -> None:
    bare, ours, *others = zip(*rounds, strict=True)
    at = f"whole, {connections} at once"
    report.compare(
        f"{at}: requests/s",
        [m.rate for m in bare],
        [m.rate for m in ours],
        at_least=0.6 if connections > 1 else None,
    )
    report.compare(
        f"{at}: CPU us/request",
        [m.cpu_each * 1e6 for m in bare],
        [m.cpu_each * 1e6 for m in ours],
    )
    added = [
        quantile(b.took, 0.5) * 1e3 - quantile(a.took, 0.5) * 1e3
        for a, b in zip(bare, ours, strict=True)
    ]
    report.tell(f"{at}: added p50, ms", sorted(added)[len(added) // 2])
    for other in others:
        report.compare(
            f"{at}: requests/s, beside LiteLLM's",
            [m.rate for m in other],
            [m.rate for m in ours],
            at_least=40 if connections > 1 else None,
        )


def measure_streams(
    report: Report, options: argparse.Namespace, place: Workplace
) -> None:
    upstream = place.upstream(PACE_MS)
    plain = place.plain("passthrough", UPSTREAM=upstream)
    ours = place.workroom("workroom-streams", **settings(upstream))
    key = new_key(ours)
    for form, provider, most in CASES:
        sides = (
            streamed(plain, form, MODEL, ""),
            streamed(ours, form, MODELS[provider], key),
        )
        bare, workroom = zip(*paired(options.rounds, *sides), strict=True)
        _tell_stream(report, f"{form} to {provider}", bare, workroom, most)


def _tell_stream(
    report: Report,
    what: str,
    bare: Sequence[Measured],
    ours: Sequence[Measured],
    most: float,
) -> None:
    report.compare(
        f"{what}: CPU us/piece",
        [m.cpu_each / len(PIECES) * 1e6 for m in bare],
        [m.cpu_each / len(PIECES) * 1e6 for m in ours],
        at_most=most,
    )
    report.compare(
        f"{what}: first token ms, p50",
        [quantile(m.first, 0.5) * 1e3 for m in bare],
        [quantile(m.first, 0.5) * 1e3 for m in ours],
    )


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--only", choices=("whole", "streams"), action="append")
    options = arguments.parse_args()
    report = Report(options)
    parts = {"whole": measure_whole, "streams": measure_streams}
    for name, measure in parts.items():
        if name in (options.only or parts):
            with Workplace() as place:
                measure(report, options, place)
    report.end()


if __name__ == "__main__":
    main()
