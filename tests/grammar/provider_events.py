"""Answers of all shapes, as providers' events: for Hypothesis to draw."""

import json
from collections.abc import Sequence

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

Events = list[ProviderEvent]

_words = st.text(min_size=1, max_size=8)
_count = st.integers(0, 1000)
_usage = st.builds(Usage, _count, _count, _count, _count, st.booleans())
_texts = st.lists(st.builds(TextDelta, _words), min_size=1, max_size=3)
_arguments: st.SearchStrategy[dict[str, str | int]] = st.dictionaries(
    _words, _words | _count, max_size=2
)


@st.composite
def _citations(draw: st.DrawFn) -> Sequence[ProviderEvent]:
    quote, start = draw(_words), draw(_count)
    return [Citation(draw(_words), quote, start, start + len(quote))]


@st.composite
def _thoughts(draw: st.DrawFn) -> Sequence[ProviderEvent]:
    """Text, a signature, or both."""
    texts = draw(st.lists(st.builds(ThinkingDelta, _words), max_size=3))
    signed = not texts or draw(st.booleans())
    return [*texts, *([ThinkingDelta("", draw(_words))] if signed else [])]


@st.composite
def _calls(draw: st.DrawFn) -> Sequence[ProviderEvent]:
    """A call whose JSON comes in pieces, of which the start may bring the first."""
    told = draw(_arguments.map(json.dumps) | st.just(""))
    cuts = sorted(draw(st.lists(st.integers(0, len(told)), max_size=3)))
    pieces = [told[a:b] for a, b in zip([0, *cuts], [*cuts, len(told)], strict=True)]
    first = pieces.pop(0) if draw(st.booleans()) else ""
    start = ToolUseStart(f"toolu_{draw(_count)}", draw(_words), first)
    return [start, *(ToolInputDelta(piece) for piece in pieces if piece)]


_blocks = st.lists(
    _texts
    | _thoughts()
    | _calls()
    | _citations()
    | st.builds(RedactedThinking, _words).map(lambda event: [event])
    | _usage.map(lambda event: [event]),
    max_size=6,
).map(lambda blocks: [event for block in blocks for event in block])


@st.composite
def answers(draw: st.DrawFn) -> Events:
    """The events of a good answer."""
    events: Events = draw(_blocks)
    calls = any(isinstance(event, ToolUseStart) for event in events)
    reasons = ["tool_use"] if calls else ["end_turn", "stop_sequence", "refusal"]
    stop = st.builds(Stop, st.sampled_from([*reasons, "max_tokens"])) | st.builds(
        Stop, st.just("stop_sequence"), _words
    )
    return [draw(_usage), *events, draw(_usage), draw(stop)]


@st.composite
def broken_answers(draw: st.DrawFn) -> Events:
    """What came of an answer before it broke off, maybe nothing."""
    events: Events = draw(_blocks)
    return events[: draw(st.integers(0, len(events)))]
