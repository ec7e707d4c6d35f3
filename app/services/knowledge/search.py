"""Finding what a project's documents say, by words."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.integrations.search.words import terms
from app.models import Chunk, ProjectDocument
from app.services.knowledge.ranking import Ranking, best, corpus_of
from app.services.knowledge.terms import key_of

MOST_CHARACTERS = 4000
"""Of a query; what comes after them is not looked at."""

_FEWEST_TERMS = 3
"""A shorter question is a name or a code as often as not: it means what it says."""

_SPARE = 20
"""Chunks that are looked at beyond what is asked for: some may be of documents that are
being indexed anew, and must not be shown before that is done."""


@dataclass(frozen=True, slots=True)
class Found:
    """A passage of a document: `text` equals its text from `start` to `end`.

    `page` is the one on which it starts, from 1, where the document has pages. `lead`
    is what it cannot be read without: the head of the table that it is a row of. A
    higher `score` is better; it compares within the answers to one query alone.
    """

    document_id: UUID
    title: str
    text: str
    start: int
    end: int
    page: int | None
    score: float
    lead: str = ""


async def search(
    session: AsyncSession, project_id: UUID, query: str, *, limit: int
) -> list[Found]:
    """The best passages, best first. Who asks must be in the project: see `require`."""
    asked = Counter(key_of(project_id, t) for t in terms(query[:MOST_CHARACTERS]))
    corpus = await corpus_of(session, project_id)
    if not corpus.chunks or not asked:
        return []
    ranking = Ranking(session, corpus)
    scores = await ranking.by_question(asked, at_least=limit)
    if len(asked) >= _FEWEST_TERMS:
        scores = await ranking.with_feedback(scores, asked.total())
    return await _found(session, scores, limit)


async def _found(
    session: AsyncSession, scores: Mapping[int, float], limit: int
) -> list[Found]:
    ranked = dict(best(scores, limit + _SPARE))
    rows = await session.execute(
        select(Chunk, ProjectDocument.title)
        .join(ProjectDocument, ProjectDocument.id == Chunk.document_id)
        .where(Chunk.id.in_(ranked), ProjectDocument.state == "ready")
    )
    chunks = {chunk.id: (chunk, title) for chunk, title in rows}
    return [
        Found(
            document_id=chunk.document_id,
            title=title,
            text=chunk.text,
            start=chunk.start,
            end=chunk.end,
            page=chunk.page,
            score=ranked[chunk.id],
            lead=chunk.lead,
        )
        for chunk, title in (chunks[key] for key in ranked if key in chunks)
    ][:limit]
