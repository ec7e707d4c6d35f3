"""Finding what a project's documents say, by words, and by what they mean.

Both rankings become one by reciprocal rank fusion: G. V. Cormack, C. L. A. Clarke, S.
Buettcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
methods", SIGIR 2009. It takes ranks alone, for scores of the two cannot be compared.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.integrations.search.words import terms
from app.models import Chunk, ProjectDocument
from app.services.knowledge.counts import Counts
from app.services.knowledge.ranking import Ranking, best, corpus_of
from app.services.knowledge.terms import key_of

MOST_CHARACTERS = 4000
"""Of a query; what comes after them is not looked at."""

_FEWEST_TERMS = 3
"""A shorter question is a name or a code as often as not: it means what it says."""

_RANKS = 60
"""The paper's k: how little the first place counts more than the next ones."""

_SPARE = 20
"""Chunks that are looked at beyond what is asked for: some may be of documents that are
being indexed anew, and must not be shown before that is done."""


@dataclass(frozen=True, slots=True)
class Found:
    """A passage of a document: `text` equals its text from `start` to `end`.

    `page` is the one on which it starts, from 1, where the document has pages. `lead`
    is what it cannot be read without: the head of the table that it is a row of. A
    higher `score` is better; it compares within the answers to one query alone. `share`
    compares across queries: it is how much of what they ask for is in there, 0 to 1, by
    their words, and by how rare these are.
    """

    document_id: UUID
    title: str
    text: str
    start: int
    end: int
    page: int | None
    score: float
    lead: str = ""
    share: float = 0.0

    @property
    def shown(self) -> str:
        """As a model reads it that gets nothing else."""
        return "\n".join(filter(None, (self.title, self.lead, self.text)))


async def search(
    session: AsyncSession,
    project_id: UUID,
    query: str,
    *,
    limit: int,
    counts: Counts,
    near: Sequence[int] = (),
) -> list[Found]:
    """The best passages, best first. Who asks must be in the project: see `require`.

    `near` are the chunks that mean most nearly the same, where that is known: see
    `Embedding.near`. By both, scores are 0 to 1.
    """
    scores, shares = await _by_words(
        session, project_id, query, limit=limit, counts=counts
    )
    if near:
        by_words = [chunk for chunk, _ in best(scores, len(scores))]
        scores = fused([by_words, near])
    return await _found(session, project_id, scores, shares, limit)


def fused(rankings: Sequence[Sequence[int]]) -> dict[int, float]:
    """Scores from 0 to 1, which is for what is first in all rankings."""
    scores: dict[int, float] = defaultdict(float)
    most = len(rankings) / (_RANKS + 1)
    for ranking in rankings:
        for rank, chunk in enumerate(ranking, 1):
            scores[chunk] += 1 / (_RANKS + rank) / most
    return scores


async def _by_words(
    session: AsyncSession, project_id: UUID, query: str, *, limit: int, counts: Counts
) -> tuple[dict[int, float], dict[int, float]]:
    """Scores and shares of the candidates."""
    asked = Counter(key_of(project_id, t) for t in terms(query[:MOST_CHARACTERS]))
    corpus = await corpus_of(session, project_id)
    if not corpus.chunks or not asked:
        return {}, {}
    ranking = Ranking(session, corpus, counts=counts)
    scores, most = await ranking.by_question(asked, at_least=limit)
    shares = {chunk: score / most for chunk, score in scores.items()}
    if len(asked) >= _FEWEST_TERMS:
        scores = await ranking.with_feedback(scores, asked.total())
    return scores, shares


async def _found(
    session: AsyncSession,
    project_id: UUID,
    scores: Mapping[int, float],
    shares: Mapping[int, float],
    limit: int,
) -> list[Found]:
    ranked = dict(best(scores, limit + _SPARE))
    rows = await session.execute(
        select(
            Chunk,
            ProjectDocument.title,
            ProjectDocument.project_id,
            ProjectDocument.state,
        )
        .join(ProjectDocument, ProjectDocument.id == Chunk.document_id)
        .where(Chunk.id.in_(ranked))
    )
    # What was near a moment ago may be gone, and its number another's. Looked at here:
    # for a condition SQLite goes through all of the project's documents.
    chunks = {
        chunk.id: (chunk, title)
        for chunk, title, project, state in rows
        if project == project_id and state == "ready"
    }
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
            share=shares.get(chunk.id, 0.0),
        )
        for chunk, title in (chunks[key] for key in ranked if key in chunks)
    ][:limit]
