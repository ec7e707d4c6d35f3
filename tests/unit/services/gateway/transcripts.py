"""Answers, and the transcripts that say how each format's stream of them reads."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.integrations.llm.base import (
    Citation,
    ProviderEvent,
    RedactedThinking,
    Stop,
    TextDelta,
    ThinkingDelta,
    ToolInputDelta,
    ToolUseStart,
    Usage,
)
from app.services.gateway.format import Writer

FOLDER = Path(__file__).parent / "golden"

ANSWERS: Mapping[str, list[ProviderEvent]] = {
    "text": [
        Usage(12, 0, estimated=True),
        TextDelta("Hello"),
        TextDelta(' "wörld"\n'),
        Usage(12, 7, cache_read_tokens=100, cache_write_tokens=20),
        Stop("end_turn"),
    ],
    "thinking": [
        ThinkingDelta("Let me "),
        ThinkingDelta("see."),
        ThinkingDelta("", "c2lnbmVk"),
        RedactedThinking("c2VjcmV0"),
        TextDelta("Yes."),
        Usage(1, 9),
        Stop("stop_sequence", "END"),
    ],
    "tools": [
        TextDelta("I look."),
        ToolUseStart("toolu_1", "weather"),
        ToolInputDelta('{"city":'),
        ToolInputDelta('"Rome"}'),
        ToolUseStart("toolu_2", "now"),
        ToolUseStart("toolu_3", "add", '{"a":1}'),
        Usage(5, 30),
        Stop("tool_use"),
    ],
    "refusal": [TextDelta("I "), Usage(3, 1), Stop("refusal")],
    "max_tokens": [TextDelta("One, two"), Usage(3, 2), Stop("max_tokens")],
    "empty": [Usage(3, 0), Stop("end_turn")],
    "citation": [
        TextDelta("It opens at nine."),
        Citation("hours.txt", "at nine", 9, 16),
        TextDelta(" Daily."),
        Usage(3, 8),
        Stop("end_turn"),
    ],
}

PROBLEM = {
    "type": "about:blank",
    "title": "The model's provider failed",
    "status": 503,
    "detail": "example.com is overloaded.",
    "code": "provider_unavailable",
}
_CHANGING = (
    (re.compile(rb"[0-9a-f]{32}"), b"TOKEN"),
    (re.compile(rb'"created(_at)?":\d+'), rb'"created\1":0'),
)


def streamed(writer: Writer, events: list[ProviderEvent]) -> bytes:
    return b"".join(map(writer.write, events))


def transcript(stream: bytes) -> str:
    """Without what is another in each answer."""
    for pattern, constant in _CHANGING:
        stream = pattern.sub(constant, stream)
    return stream.decode()


def golden(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def whole(writer: Writer, events: list[ProviderEvent]) -> dict[str, Any]:
    streamed(writer, events)
    return writer.whole()
