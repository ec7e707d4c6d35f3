"""What is left of a budget of tokens, and who got the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from app.integrations.llm.base import Block, Source
from app.integrations.llm.blocks import FileBlock
from app.integrations.llm.tokens import estimate_blocks, estimate_tokens
from app.services.chat.framing import AS_DATA
from app.services.chat.quotes import ASK_FOR_QUOTES

Origin = Literal[
    "system", "instructions", "memory", "knowledge", "attachments", "history"
]
"""Where it comes from, in the order of the budget."""

BETWEEN = "\n\n"
"""What texts are joined by."""

NO_ROOM = "It does not fit beside what comes before it."
_ATTACHED = f"Files are attached to messages. {AS_DATA} {ASK_FOR_QUOTES}"


class Piece(NamedTuple):
    """A part of an offer: it goes in whole or not at all.

    `text` is all that the model reads of it; `source` is what a reply may quote of it.
    """

    name: str
    text: str
    source: Source | None = None


class Dropped(NamedTuple):
    """What a model does not get, and why, as a sentence."""

    name: str
    tokens: int
    reason: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What one source has to say in a turn, the best piece first.

    `lead` stands before its pieces, where any goes in. What is `required` is never
    dropped. What is not `stable` differs with the question; it gets at most `most`
    tokens, and as many are kept for it in every turn. `mode` is how the source chose,
    and `dropped` what it leaves out itself.
    """

    origin: Origin
    pieces: Sequence[Piece]
    lead: str = ""
    required: bool = False
    stable: bool = True
    most: int = 0
    mode: str | None = None
    dropped: Sequence[Dropped] = ()


class Used(NamedTuple):
    name: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Share:
    """What a source got of the budget."""

    origin: Origin
    tokens: int
    used: Sequence[Used]
    dropped: Sequence[Dropped] = ()
    mode: str | None = None


class File(NamedTuple):
    """A block that is no text of the user's own, of the message at `place`."""

    place: int
    block: Block
    tokens: int

    @property
    def source(self) -> Source | None:
        """What of it may be quoted."""
        block = self.block
        if isinstance(block, FileBlock):
            return block.source
        if block["type"] == "document" and block["source"]["type"] == "text":
            return Source(self.name, block["source"]["data"])
        return None

    @property
    def name(self) -> str:
        if isinstance(self.block, FileBlock) and self.block.source:
            return self.block.source.name
        return str(self.block.get("title") or self.block["type"])


class Shares:
    """What is left of a budget, and who got the rest."""

    def __init__(self, budget: int) -> None:
        self.free = budget
        self.kept_free = 0
        """For offers that take more in another turn, so that history's room stays."""
        self.given: list[Share] = []
        self.system: list[str] = []
        self.before_question: list[str] = []
        self.sources: list[Source] = []
        self.files: list[File] = []
        """Those that go in, by the place of their message."""
        self._files_dropped: list[Dropped] = []
        self._files_lead = 0

    @property
    def met_files(self) -> bool:
        return bool(self.files or self._files_dropped)

    def all_given(self) -> list[Share]:
        if not self.met_files:
            return self.given
        used = [Used(file.name, file.tokens) for file in self.files]
        if self._files_lead:
            used.append(Used("how to read them", self._files_lead))
        spent = sum(one.tokens for one in used)
        share = Share("attachments", spent, used, self._files_dropped)
        return [*self.given, share]

    def take(self, offer: Offer) -> None:
        room = self.free if offer.stable else min(self.free, offer.most)
        used: list[Used] = []
        dropped = list(offer.dropped)
        texts = [offer.lead] if offer.lead else []
        spent = cost(offer.lead)
        for piece in offer.pieces:
            tokens = cost(piece.text)
            if not offer.required and spent + tokens > room:
                dropped.append(Dropped(piece.name, tokens, NO_ROOM))
                continue
            spent += tokens
            texts.append(piece.text)
            used.append(Used(piece.name, tokens))
            if piece.source is not None:
                self.sources.append(piece.source)
        if used:
            self.free -= spent
            (self.system if offer.stable else self.before_question).extend(texts)
        else:
            spent = 0
        self.kept_free += max(offer.most - spent, 0)
        self.given.append(Share(offer.origin, spent, used, dropped, offer.mode))

    def take_question(self, tokens: int, files: Sequence[File]) -> None:
        """What must go in; `free` is negative where it does not fit."""
        self.free -= tokens
        for file in files:
            self._put(file)

    def take_files(self, files: Sequence[File]) -> None:
        """Those of earlier messages, the newest first, each whole or not at all."""
        for file in files:
            if file.tokens > max(self.free - self.kept_free, 0):
                dropped = Dropped(file.name, file.tokens, NO_ROOM)
                self._files_dropped.append(dropped)
            else:
                self._put(file)

    def _put(self, file: File) -> None:
        self.files.append(file)
        self.free -= file.tokens
        if (source := file.source) is None:
            return
        self.sources.append(source)
        lead = cost(_ATTACHED)
        if not self._files_lead and self.free >= lead:
            self._files_lead = lead
            self.free -= lead
            self.system.append(_ATTACHED)


def files_of(blocks: Sequence[Block], place: int) -> list[File]:
    return [File(place, b, estimate_blocks([b])) for b in blocks if is_file(b)]


def is_file(block: Block) -> bool:
    """Anything but a text of the user's own, or of the model's."""
    return type(block) is not dict or block["type"] != "text"


def cost(text: str) -> int:
    """Its tokens, with what stands between it and the next one."""
    return estimate_tokens(text + BETWEEN) if text else 0
