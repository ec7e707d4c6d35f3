"""What the sources of a chat have to say in a turn, in the order of the budget.

What they say is read once for a turn, whichever model takes it then; what each model
gets of it depends on how much it takes. A new source is one more offer in
`Gathered.offers`.

The text of documents is data, whoever wrote it, and framed as such.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import Uuid, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import Database
from app.core.statements import Statement
from app.integrations.llm.base import Source
from app.models import KeyLimits, Project, ProjectDocument
from app.services.authorization import owned
from app.services.chat.framing import AS_DATA, framed, plain
from app.services.chat.history import ChatFacts, Said
from app.services.chat.quotes import ASK_FOR_QUOTES
from app.services.chat.shares import Dropped, Offer, Piece, cost
from app.services.knowledge.retrieval import Retrieval
from app.services.knowledge.search import Found

Mode = Literal["full", "retrieval"]
"""Whether a model gets a project's documents, or passages that fit the question."""

MOST_RETRIEVED = 8000  # tokens of passages
MOST_PASSAGES = 20

_OF_ROOM = 3, 4
"""The part of a model's room that documents may have: the rest is for the chat."""

_LONGEST_QUERY = 2000  # characters
_FEW_WORDS = 4
"""A question of fewer words leans on the one before."""

_DOCUMENTS = f"The documents of this project follow. {AS_DATA} {ASK_FOR_QUOTES}"
_PASSAGES = (
    "Passages of this project's documents follow, which were searched for by the "
    f"question after them. {AS_DATA} {ASK_FOR_QUOTES}"
)
_NOT_IN_PROJECT = "The chat's owner is not in its project, or that is deleted."
_OVER_LIMIT = "Documents may take {} tokens here."
_SEARCHED = _OVER_LIMIT + " Passages that fit the question take their place."
_SET_TO_SEARCH = "The project is set to search for passages."


class Document(NamedTuple):
    """Of a project, without its text; `cost` is what it takes whole, at the most."""

    id: UUID
    title: str
    pages: Sequence[int]
    cost: int


@dataclass(frozen=True, slots=True)
class Knowledge:
    """A project as its members' chats get it.

    `texts` are of those documents that some model may get whole, `found` is what was
    searched for where some model may not get all.
    """

    name: str
    instructions: str
    token_limit: int | None
    context_mode: str
    documents: Sequence[Document]
    tokens: int
    """Of all documents."""
    texts: Mapping[UUID, str] = field(default_factory=dict)
    found: Sequence[Found] = ()

    def limit(self, room: int) -> int:
        """The tokens that its documents may take of a model's `room`."""
        share, of = _OF_ROOM
        most = max(room - cost(self.instructions), 0) * share // of
        return most if self.token_limit is None else min(most, self.token_limit)

    def mode(self, room: int) -> Mode:
        """The one in force."""
        if self.context_mode == "full" or (
            self.context_mode == "auto" and self.tokens <= self.limit(room)
        ):
            return "full"
        return "retrieval"

    def fitting(self, room: int) -> list[Document]:
        """The first documents that a model of that room may get whole."""
        left = self.limit(room)
        chosen = []
        for document in self.documents:
            if document.cost <= left:
                left -= document.cost
                chosen.append(document)
        return chosen

    def offer(self, room: int) -> Offer:
        if self.mode(room) == "full":
            return self._whole(room)
        return self._passages(room)

    def _whole(self, room: int) -> Offer:
        chosen = {one.id for one in self.fitting(room)} & self.texts.keys()
        over = _OVER_LIMIT.format(self.limit(room))
        return Offer(
            "knowledge",
            [self._piece(one) for one in self.documents if one.id in chosen],
            lead=_DOCUMENTS,
            mode="full",
            dropped=[
                Dropped(one.title, one.cost, over)
                for one in self.documents
                if one.id not in chosen
            ],
        )

    def _piece(self, document: Document) -> Piece:
        text = self.texts[document.id]
        source = Source(document.title, text, pages=document.pages, id=str(document.id))
        return Piece(document.title, framed("document", document.title, text), source)

    def _passages(self, room: int) -> Offer:
        limit = self.limit(room)
        by_choice = self.context_mode == "retrieval"
        why = _SET_TO_SEARCH if by_choice else _SEARCHED.format(limit)
        whole = Dropped("documents as a whole", self.tokens, why)
        return Offer(
            "knowledge",
            [_passage(found) for found in self.found],
            lead=_PASSAGES,
            stable=False,
            most=min(limit, MOST_RETRIEVED),
            mode="retrieval",
            dropped=[whole] if self.documents else [],
        )


@dataclass(frozen=True, slots=True)
class Gathered:
    """All that the sources have to say, for models of whatever size."""

    system_prompt: str | None
    knowledge: Knowledge | None
    lost: bool
    """Whether the chat is bound to a project whose member its owner is not."""

    def offers(self, room: int) -> list[Offer]:
        """For a model that takes `room` tokens of input."""
        offers = []
        if self.system_prompt:
            prompt = Piece("the chat's system prompt", self.system_prompt)
            offers.append(Offer("system", [prompt], required=True))
        if self.lost:
            missing = Dropped("the project", 0, _NOT_IN_PROJECT)
            offers.append(Offer("instructions", [], dropped=[missing]))
        if self.knowledge is not None:
            if self.knowledge.instructions:
                offers.append(_instructions(self.knowledge))
            offers.append(self.knowledge.offer(room))
        return offers


async def gather(
    database: Database,
    retrieval: Retrieval,
    chat: ChatFacts,
    branch: Sequence[Said],
    rooms: Sequence[int],
    *,
    key: KeyLimits | None,
) -> Gathered:
    """What the sources say to models that take so many tokens of input each.

    `key` is the API key by which the chat's owner asks, if any.

    It takes no statement for a chat without a project. Who is in the project is asked
    here, in each turn: nothing of it is kept for those who have left.
    """
    knowledge = None
    if chat.project_id is not None:
        knowledge = await _knowledge(
            database,
            retrieval,
            chat,
            chat.project_id,
            branch=branch,
            rooms=rooms,
            key=key,
        )
    return Gathered(
        chat.system_prompt,
        knowledge,
        lost=chat.project_id is not None and knowledge is None,
    )


async def _knowledge(
    database: Database,
    retrieval: Retrieval,
    chat: ChatFacts,
    project: UUID,
    *,
    branch: Sequence[Said],
    rooms: Sequence[int],
    key: KeyLimits | None,
) -> Knowledge | None:
    read = await database.run(_PROJECT(project=project, user=chat.user_id), brief=True)
    if not read.rows:
        return None
    listed = await database.run(_LISTED(project=project))
    documents = [document_of(row) for row in listed.rows]
    tokens = sum(document.cost for document in documents)
    known = Knowledge(**read.rows[0], documents=documents, tokens=tokens)
    whole = [room for room in rooms if known.mode(room) == "full"]
    wanted = {document.id for room in whole for document in known.fitting(room)}
    query = question(branch) if len(whole) < len(rooms) and documents else ""
    if not wanted and not query:
        return known
    found: Sequence[Found] = ()
    if query:
        found = await retrieval.find(
            chat.user_id, project, query, limit=MOST_PASSAGES, key=key
        )
    async with database.unit_of_work(read_only=True) as session:
        texts = await _texts(session, wanted)
    return replace(known, texts=texts, found=found)


def question(branch: Sequence[Said]) -> str:
    """What to search for: the last question, and the one before if it is short."""
    asked = [said for said in branch if said.role == "user"][:2]
    last, before = (*map(_words, asked), "", "")[:2]
    if len(last.split()) < _FEW_WORDS and before:
        last = f"{last}\n{before}"
    return last[:_LONGEST_QUERY].strip()


def _words(said: Said) -> str:
    return "\n".join(b["text"] for b in said.content if b["type"] == "text")


async def _texts(session: AsyncSession, ids: Collection[UUID]) -> dict[UUID, str]:
    if not ids:
        return {}
    texts = select(ProjectDocument.id, ProjectDocument.text)
    found = await session.execute(texts.where(ProjectDocument.id.in_(ids)))
    return {row.id: row.text for row in found}


def document_of(row: dict[str, Any]) -> Document:
    frame = cost(framed("document", row["title"], ""))
    return Document(row["id"], row["title"], row["pages"], row["tokens"] + frame)


def _instructions(knowledge: Knowledge) -> Offer:
    piece = Piece("the project's instructions", knowledge.instructions)
    lead = f"Instructions of the project {plain(knowledge.name)}:"
    return Offer("instructions", [piece], lead=lead, required=True)


def _passage(found: Found) -> Piece:
    name = found.title if found.page is None else f"{found.title}, page {found.page}"
    source = Source(
        found.title,
        found.text,
        start=found.start,
        page=found.page,
        id=str(found.document_id),
        lead=found.lead,
    )
    shown = f"{found.lead}\n{found.text}" if found.lead else found.text
    text = framed("passage", found.title, shown, page=found.page)
    return Piece(name, text, source)


_PROJECT = Statement(
    select(
        Project.name,
        func.coalesce(Project.instructions, "").label("instructions"),
        Project.token_limit,
        Project.context_mode,
    ).where(
        Project.id == bindparam("project", type_=Uuid()),
        owned(Project, bindparam("user", type_=Uuid())),
    )
)
_LISTED = Statement(
    select(
        ProjectDocument.id,
        ProjectDocument.title,
        ProjectDocument.pages,
        ProjectDocument.tokens,
    )
    .where(
        ProjectDocument.project_id == bindparam("project", type_=Uuid()),
        ProjectDocument.state != "deleted",
    )
    .order_by(ProjectDocument.id)
)
