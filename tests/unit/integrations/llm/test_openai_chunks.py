"""Chunks are read in two ways, by their form and by a parser: nobody can tell which."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.integrations.llm.base import (
    ProviderEvent,
    ProviderStreamBrokenError,
    TextDelta,
    ThinkingDelta,
    joined,
)
from app.integrations.llm.openai_chunks import ChunkReader
from tests.unit.integrations.llm.calls import ask, user

WORDS = st.text(max_size=6) | st.sampled_from(
    ["", "content", "x", '"', "\\", '"x"', "\n", "é", "\u3000", "🙂", "null", "a\\"]
)
SPELLINGS: Sequence[Callable[[Any], bytes]] = (
    orjson.dumps,
    lambda chunk: json.dumps(chunk).encode(),
    lambda chunk: json.dumps(chunk, separators=(",", " :"), sort_keys=True).encode(),
)

Piece = tuple[str, str]


def chunk_of(piece: Piece, around: dict[str, Any]) -> dict[str, Any]:
    key, words = piece
    choice = {"index": 0, "delta": {key: words}, "finish_reason": None}
    return {**around, "choices": [choice], "usage": None}


def read(*reads: Sequence[bytes]) -> list[ProviderEvent]:
    reader = ChunkReader("a server", ask("m", user("Hi")))
    return [event for datas in reads for event in joined(reader.read(datas))]


def text(events: Sequence[ProviderEvent]) -> list[str]:
    """Texts by their kind, those of a kind that follow each other as one."""
    told: list[tuple[type, str]] = []
    for event in events:
        assert isinstance(event, TextDelta | ThinkingDelta)
        if told and told[-1][0] is type(event):
            told[-1] = (type(event), told[-1][1] + event.text)
        else:
            told.append((type(event), event.text))
    return [f"{kind.__name__}: {words}" for kind, words in told]


@given(
    pieces=st.lists(
        st.tuples(
            st.sampled_from(["content", "content", "content", "reasoning"]), WORDS
        ),
        max_size=30,
    ),
    around=st.dictionaries(WORDS, WORDS, max_size=3),
    cuts=st.lists(st.integers(min_value=1, max_value=5), max_size=30),
    spelling=st.sampled_from(SPELLINGS),
)
def test_every_text_is_read_as_it_was_written(
    pieces: list[Piece],
    around: dict[str, Any],
    cuts: list[int],
    spelling: Callable[[Any], bytes],
) -> None:
    around = {k: v for k, v in around.items() if k not in ("error", "object")}
    datas = [spelling(chunk_of(piece, around)) for piece in pieces]
    alone = [event for data in datas for event in read([data])]

    reads, rest = [], datas
    for cut in cuts:
        reads.append(rest[:cut])
        rest = rest[cut:]

    assert text(read(*reads, rest)) == text(alone)


@pytest.mark.parametrize("field", ["obfuscation", "system_fingerprint"])
def test_chunks_that_differ_in_more_are_all_read(field: str) -> None:
    datas = [
        orjson.dumps(chunk_of(("content", f"w{i} "), {field: "x" * i}))
        for i in range(20)
    ]

    events = read(*([data] for data in datas))

    assert text(events) == ["TextDelta: " + "".join(f"w{i} " for i in range(20))]


@pytest.mark.parametrize("spelled", [b'"a', b'"a"}', b'"\n"', b'"\xff"', b'"a" "b"'])
def test_what_is_no_text_ends_the_answer(spelled: bytes) -> None:
    before, after = orjson.dumps(chunk_of(("content", "x"), {})).split(b'"x"')
    good = b'%b"yes"%b' % (before, after)
    broken = before + spelled + after

    with pytest.raises(ProviderStreamBrokenError):
        read([good], [good, broken])


def test_a_text_may_be_told_with_another_thing_in_its_chunk() -> None:
    plain = orjson.dumps(chunk_of(("content", "x"), {}))
    more = plain.replace(b'"x"', b'"y","reasoning":"z"')

    assert text(read([plain], [plain, more])) == [
        "TextDelta: xx",
        "ThinkingDelta: z",
        "TextDelta: y",
    ]
