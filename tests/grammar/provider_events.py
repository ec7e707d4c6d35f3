"""Answers of providers, as hypothesis makes them up within the port's contract."""

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import orjson
from hypothesis import strategies as st

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

T = TypeVar("T")
Events = list[ProviderEvent]

_words = st.text(min_size=1, max_size=12)
_figures = st.integers(0, 10**6)
_usage = st.builds(Usage, _figures, _figures, _figures, _figures, st.booleans())
_inputs = st.dictionaries(_words, st.one_of(st.none(), _figures, _words))


def _one(
    build: Callable[..., ProviderEvent], *of: st.SearchStrategy[T]
) -> st.SearchStrategy[Events]:
    return st.builds(build, *of).map(lambda event: [event])


@st.composite
def _citations(draw: st.DrawFn) -> Events:
    quote, start = draw(_words), draw(_figures)
    return [Citation(draw(_words), quote, start, start + len(quote))]


@st.composite
def _calls(draw: st.DrawFn) -> Events:
    """A call of a tool, whose JSON is cut anywhere: whole, or with its start."""
    json = orjson.dumps(draw(_inputs)).decode() if draw(st.booleans()) else ""
    cuts = sorted(draw(st.lists(st.integers(0, len(json)), max_size=3)))
    ends = [0, *cuts, len(json)]
    first, *rest = [json[a:b] for a, b in pairwise(ends)]
    start = ToolUseStart(draw(_words), draw(_words), first)
    return [start, *(ToolInputDelta(piece) for piece in rest if piece)]


@st.composite
def answers(draw: st.DrawFn) -> Events:
    """A good answer: usage, whatever a model says in any order, usage, and the stop."""
    parts = st.one_of(
        _one(TextDelta, _words),
        _one(TextDelta, _words),
        _one(ThinkingDelta, _words),
        _one(ThinkingDelta, st.just(""), _words),
        _one(RedactedThinking, _words),
        _citations(),
        _calls(),
        _usage.map(lambda usage: [usage]),
    )
    said = [event for part in draw(st.lists(parts, max_size=12)) for event in part]
    reasons = st.sampled_from(["end_turn", "max_tokens", "tool_use", "refusal"])
    stop = st.one_of(
        st.builds(Stop, reasons), st.builds(Stop, st.just("stop_sequence"), _words)
    )
    return [draw(_usage), *said, draw(_usage), draw(stop)]
