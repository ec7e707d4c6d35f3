"""Random turns, and what may be wrong with the context that is made for one."""

import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from uuid_utils.compat import uuid7

from app.core.exceptions import ValidationFailedError
from app.integrations.llm.base import ChatRequest, ModelInfo, Source
from app.integrations.llm.blocks import FileBlock
from app.integrations.llm.messages_api import message_body
from app.integrations.llm.tokens import (
    estimate_blocks,
    estimate_body,
    estimate_input,
    estimate_tokens,
)
from app.services.chat.context import Context, assemble
from app.services.chat.framing import framed
from app.services.chat.history import Said
from app.services.chat.offers import Gathered, Knowledge, document_of
from app.services.chat.shares import Offer, Piece
from app.services.knowledge.search import Found

LETTERS = string.ascii_letters + "     \n\"'<>äß漢字🙂"
INSTRUCTIONS = ("system", "instructions")
SENT_AS = (("prefill", "prompt_caching"), ("prompt_caching",), ())
"""Models by how they are asked: a body of each must fit."""


@dataclass(frozen=True)
class Case:
    """A turn: `window` and `answer` in tokens."""

    branch: Sequence[Said]
    offers: Sequence[Offer]
    window: int
    answer: int

    def assemble(self) -> Context:
        model = ModelInfo("test/model", self.window, self.answer, frozenset())
        return assemble(
            self.branch,
            model=model,
            max_output_tokens=self.answer,
            offers=self.offers,
        )

    @property
    def required(self) -> list[str]:
        """Each text that must not be missing."""
        return [p.text for o in self.offers if o.required for p in o.pieces]

    @property
    def question(self) -> list[str]:
        said = next(one for one in self.branch if one.role == "user")
        return [b["text"] for b in said.content if b["type"] == "text"]


def case(chance: random.Random) -> Case:
    """Any turn, with windows from far too small to far too large."""
    window = int(10 ** chance.uniform(1, 5.3))
    answer = chance.randint(0, window)
    if chance.random() < 0.5:
        offers = _project(chance, window).offers(window - answer)
    else:
        offers = [*_instructions(chance, window), *_documents(chance, window)]
    branch = list(_branch(chance, window))
    return Case(branch=branch, offers=offers, window=window, answer=answer)


def _text(chance: random.Random, most: int) -> str:
    """Up to `most` tokens of it; short ones are as likely as long ones."""
    size = int(most ** chance.random()) * 4
    some = "".join(chance.choices(LETTERS, k=min(size, 97)))
    return (some * (size // len(some) + 1))[:size]


def _branch(chance: random.Random, window: int) -> Iterator[Said]:
    """Newest first; a reply that is being continued may come before the question."""
    count = int(2 ** chance.uniform(0, 8))
    each = max(int(window * chance.uniform(0, 3) / count), 2)
    role = chance.choice(("user", "user", "assistant"))
    if role == "assistant":
        count += 1
    for number in range(count):
        blocks = [{"type": "text", "text": _text(chance, each)}]
        if chance.random() < 0.05:
            blocks.insert(chance.randint(0, 1), _attached(chance, each))
            del blocks[chance.choice((0, 2, 2)) :: 2]
        summary = _text(chance, each) if chance.random() < 0.02 else None
        files = [_attached(chance, each)] if summary and chance.random() < 0.5 else None
        parent = None if number == count - 1 else uuid7()
        yield Said(uuid7(), parent, role, "complete", blocks, summary, files)
        if number == 0 or chance.random() < 0.95:
            role = "user" if role == "assistant" else "assistant"


def _attached(chance: random.Random, most: int) -> Any:
    if chance.random() < 0.5:
        source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
        return {"type": "image", "source": source}
    text = _text(chance, most)
    if chance.random() < 0.5:
        source = {"type": "text", "media_type": "text/plain", "data": text}
        return {"type": "document", "source": source, "title": "notes.txt"}
    block = FileBlock(type="text", text=framed("attachment", "notes.txt", text))
    block.source = Source("notes.txt", text)
    return block


def _instructions(chance: random.Random, window: int) -> Iterator[Offer]:
    for origin in INSTRUCTIONS:
        if chance.random() < 0.6:
            text = _text(chance, max(window // chance.randint(1, 9), 2))
            yield Offer(origin, [Piece(origin, text)], "Mind this:", required=True)  # type: ignore[arg-type]  # names of origins, as strings


def _documents(chance: random.Random, window: int) -> Iterator[Offer]:
    if chance.random() < 0.5:
        return
    stable = chance.random() < 0.5
    pieces = []
    for number in range(chance.randint(0, 12)):
        text = _text(chance, max(window // chance.randint(1, 30), 2))
        pieces.append(Piece(f"{number}", text, Source(f"{number}", text)))
    most = 0 if stable else window // chance.randint(1, 8)
    yield Offer("knowledge", pieces, "Documents:", stable=stable, most=most)


def _project(chance: random.Random, window: int) -> Gathered:
    """A chat of a project, in any of its modes."""
    documents, texts, found = [], {}, []
    for number in range(chance.randint(0, 12)):
        text = _text(chance, max(window // chance.randint(1, 30), 2))
        row = {"id": uuid7(), "title": f"{number}.txt", "pages": []}
        document = document_of(row | {"tokens": estimate_tokens(text)})
        documents.append(document)
        texts[document.id] = text
        end = chance.randint(1, len(text))
        passage = Found(document.id, document.title, text[:end], 0, end, None, 1.0)
        found.append(passage)
    knowledge = Knowledge(
        name="Project",
        instructions=_text(chance, max(window // 9, 2)),
        token_limit=chance.choice((None, chance.randint(0, window))),
        context_mode=chance.choice(("auto", "full", "retrieval")),
        documents=documents,
        tokens=sum(document.cost for document in documents),
        texts=texts,
        found=found,
    )
    return Gathered("Be brief.", knowledge, lost=False)


def faults(turn: Case) -> list[str]:
    """What is wrong with the context of a turn; nothing, as it should be."""
    try:
        context = turn.assemble()
    except ValidationFailedError as refused:
        return [] if is_too_long(turn) else [f"refused without need: {refused.code}"]
    sent = [b for m in context.messages for b in m.content]
    texts = "\n".join(b.get("text") or str(b["source"]["data"]) for b in sent)
    request = ChatRequest("model", context.messages, context.system, turn.answer)
    used = estimate_input(request)
    roles = [message.role for message in context.messages]
    asked = max(place for place, role in enumerate(roles) if role == "user")
    question = str(context.messages[asked].content)
    found = {
        "over its budget": used + turn.answer > turn.window,
        "estimated too low": used > context.tokens,
        "an instruction is lost": any(t not in context.system for t in turn.required),
        "the question is lost": any(
            repr(t) not in question for t in turn.question if t
        ),
        "a reply comes first": roles[0] != "user",
        "roles repeat": any(a == b for a, b in pairwise(roles)),
        "a source is not sent": any(
            s.text not in context.system + texts for s in context.sources
        ),
    }
    for capabilities in SENT_AS:
        body, _ = message_body(request, capabilities=capabilities)
        name = f"the body is over it, for {capabilities}"
        found[name] = estimate_body(body) + turn.answer > turn.window
    return [name for name, wrong in found.items() if wrong]


def is_too_long(turn: Case) -> bool:
    """Whether instructions and question do not fit, with some tokens to spare."""
    spare = 160
    needed = spare + sum(map(estimate_tokens, turn.required))
    for said in turn.branch:
        needed += estimate_blocks(said.content)
        if said.role == "user":
            break
    return needed + turn.answer > turn.window
