"""The guide: what answers in an installation that has no AI model.

It looks the question up in the sources that it is given, which are a project's
documents and a chat's attachments, and in Workroom's own manual, and quotes what it
finds there, with its source; where it finds nothing it says so, and how to connect a
model. The same question always gets the same answer, so an answer that was cut off can
be continued exactly.

What it quotes of a given source is cited like any model's quotes, by who gave the
source. It makes the citations of its manual itself.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from app.integrations.llm.base import (
    ChatMessage,
    ChatRequest,
    Citation,
    ModelInfo,
    Prices,
    ProviderEvent,
    ProviderRejectedError,
    Source,
    Stop,
    TextDelta,
    Usage,
)
from app.integrations.llm.blocks import rejected_field
from app.integrations.search.lexical import Frequency, Hit, Texts
from app.integrations.search.passages import Passage, document_named
from app.integrations.search.words import terms

RELEVANT = 0.28
"""The least score of a passage that is quoted; tests/integration/test_guide.py holds
the questions, of the manual and of the world, that it was chosen between."""

NEARLY_AS_GOOD = 0.9
"""The further passages quoted score at least this share of the best one's score."""

MOST_QUOTES = 3
MOST_QUOTED_CHARS = 3000
"""The best passage is quoted whole, whatever its length; others while they fit."""

_CANDIDATES = 10
"""Passages of the manual that are looked at: its index has an order of its own."""

FEW_TERMS = 2
"""A question of so few words that, finding nothing, it may lean on the one before."""

_WHO = "The guide"
_FOLLOW_UP = re.compile(
    r"\s*(?:and|or|but|so|then|also|why|(?:what|how)\s+(?:about|if))\b", re.IGNORECASE
)
_PIECE = re.compile(r"\s*(?:\S+\s*){1,3}|\s+")

_INTRODUCTION = "I am the guide, not an AI model: I quote {}."
_MANUAL = "Workroom's manual"
_GIVEN = "what this chat has to lean on"

_NOTHING_FOUND = "I am the guide, not an AI model: I can only quote {}, and I found "
_NOTHING_IN_MANUAL = _NOTHING_FOUND.format(_MANUAL) + "nothing in it about this."
_NOTHING_GIVEN = (
    _NOTHING_FOUND.format(f"{_GIVEN} and {_MANUAL}") + "nothing in them about this."
)

_HOW_TO_CONNECT = """\
To get an answer from a model, connect one: set its variables in `.env` and start \
Workroom again.

- **AWS Bedrock**: `AWS_REGION`, and a Bedrock API key in `AWS_BEARER_TOKEN_BEDROCK` \
or AWS keys in `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`. On AWS, a role needs \
no key.
- **OpenAI**: `OPENAI_API_KEY`.
- **A server that speaks OpenAI's API**, such as vLLM, Ollama or LM Studio: \
`OPENAI_BASE_URL`, and `OPENAI_API_KEY` if it wants a key.

Ask me "How do I connect AWS Bedrock?" or "How do I use Ollama?" for the steps.
"""


@dataclass(frozen=True, slots=True)
class _Answer:
    """A whole answer; each citation of the manual with where in `text` it ends."""

    text: str
    citations: tuple[tuple[int, Citation], ...] = ()


class Manual(Protocol):
    """Workroom's manual, in an index."""

    async def search(self, query: str, limit: int) -> Sequence[Hit]:
        """The best passages, best first."""

    async def frequency(self, terms: Collection[str]) -> Frequency: ...


class GuideProvider:
    name = "guide"
    missing: str | None = None

    def __init__(self, manual: Manual) -> None:
        self._manual = manual

    async def models(self) -> list[ModelInfo]:
        return [
            ModelInfo(
                name="guide/manual",
                context_window=100_000,
                max_output_tokens=4096,
                capabilities=frozenset({"text"}),
                prices=Prices(Decimal(0), Decimal(0)),
            )
        ]

    async def stream(self, request: ChatRequest) -> AsyncIterator[ProviderEvent]:
        if request.model != "manual":
            raise ProviderRejectedError(f"The guide has no model {request.model}.")
        _refuse_wishes(request)
        given, messages = _split_off_given(request.messages)
        questions = _questions(messages, request.question)
        answer = await self._answer(questions, request.sources)
        if answer.text.startswith(given):
            for event in _rest(answer, len(given)):
                yield event
                if isinstance(event, TextDelta):
                    await asyncio.sleep(0)
        yield Usage(input_tokens=0, output_tokens=0)
        yield Stop("end_turn")

    async def close(self) -> None:
        """Holds nothing that needs closing."""

    async def _answer(self, questions: list[str], sources: Sequence[Source]) -> _Answer:
        # A name may stand for several passages, or for several documents.
        documents = [document_named(s.name, s.text, lead=s.lead) for s in sources]
        texts = await asyncio.to_thread(Texts, documents) if documents else None
        found = await self._find(questions, texts)
        return _compose(found, given=frozenset(source.name for source in sources))

    async def _find(self, questions: list[str], texts: Texts | None) -> list[Passage]:
        last, before = (*questions, "", "")[:2]
        both = f"{last} {last} {before}"
        if before and (_FOLLOW_UP.match(last) or not terms(last)):
            return await self._relevant(both, texts)
        found = await self._relevant(last, texts)
        if not found and before and len(terms(last)) <= FEW_TERMS:
            return await self._relevant(both, texts)
        return found

    async def _relevant(self, query: str, texts: Texts | None) -> list[Passage]:
        """The passages worth quoting, best first; of equal ones those of `texts`."""
        hits: list[Hit] = []
        if texts is not None:
            beside = await self._manual.frequency(set(terms(query)))
            hits += texts.search(query, MOST_QUOTES, beside=beside)
        hits += await self._manual.search(query, _CANDIDATES)
        hits.sort(key=lambda hit: -hit.score)
        chosen: list[Passage] = []
        room = MOST_QUOTED_CHARS
        for hit in hits[:MOST_QUOTES]:
            room -= len(hit.passage.text)
            if hit.score < max(RELEVANT, NEARLY_AS_GOOD * hits[0].score):
                break
            if room >= 0 or not chosen:
                chosen.append(hit.passage)
        return chosen


def _refuse_wishes(request: ChatRequest) -> None:
    """What it cannot do, and what would make its answer another one.

    Sampling changes nothing of an answer that is always the same, nor does thinking.
    """
    if request.output_format:
        raise rejected_field("output_format", _WHO)
    if request.stop_sequences:
        raise rejected_field("stop_sequences", _WHO)


def _split_off_given(
    messages: Sequence[ChatMessage],
) -> tuple[str, Sequence[ChatMessage]]:
    """The text that is to be continued, and the messages before it."""
    if messages and messages[-1].role == "assistant":
        return _text(messages[-1]), messages[:-1]
    return "", messages


def _text(message: ChatMessage) -> str:
    return "".join(b["text"] for b in message.content if b.get("type") == "text")


def _questions(messages: Sequence[ChatMessage], last: str | None) -> list[str]:
    """The user's last question, then the one before it."""
    asked = [_text(m) for m in messages if m.role == "user"][:-3:-1]
    return asked if last is None else [last, *asked[1:]]


def _compose(found: list[Passage], *, given: Collection[str]) -> _Answer:
    if not found:
        nothing = _NOTHING_GIVEN if given else _NOTHING_IN_MANUAL
        return _Answer(f"{nothing}\n\n{_HOW_TO_CONNECT}")
    quoted = {_GIVEN if passage.source in given else _MANUAL: None for passage in found}
    text = _INTRODUCTION.format(" and ".join(quoted))
    citations: list[tuple[int, Citation]] = []
    for section in _by_section(found):
        lead = section[0].lead
        text += f"\n\n{_heading(section[0])}\n\n"
        text += f"{_quoted(lead)}\n" if lead else ""
        for number, passage in enumerate(section):
            # Rows go on with their table; other passages are quotes of their own.
            text += ("\n" if lead else "\n\n") if number else ""
            text += _quoted(passage.text)
            if passage.source not in given:
                citations.append((len(text), _citation(passage)))
    return _Answer(text + "\n", tuple(citations))


def _by_section(found: list[Passage]) -> list[list[Passage]]:
    """Passages of one section, or rows of one table, together and in their order."""
    sections: dict[tuple[str, str, str], list[Passage]] = {}
    for p in found:
        sections.setdefault((p.source, p.anchor, p.lead), []).append(p)
    return [sorted(s, key=lambda p: p.start) for s in sections.values()]


def _source(passage: Passage) -> str:
    return f"{passage.source}#{passage.anchor}" if passage.anchor else passage.source


def _heading(passage: Passage) -> str:
    title = " > ".join(passage.headings) or passage.source
    return f"**{title}** (`{_source(passage)}`)"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


def _citation(passage: Passage) -> Citation:
    return Citation(_source(passage), passage.text, passage.start, passage.end)


def _rest(answer: _Answer, given: int) -> Iterator[ProviderEvent]:
    """What comes after the first `given` characters of an answer.

    A citation comes just before the piece that ends its quote: whoever was cut off
    with the whole quote has the citation already, and the continuation leaves it out.
    """
    waiting = [(end, citation) for end, citation in answer.citations if end > given]
    place = given
    for piece in _PIECE.findall(answer.text, given):
        place += len(piece)
        while waiting and waiting[0][0] <= place:
            yield waiting.pop(0)[1]
        yield TextDelta(piece)
