"""The sums that rank a project's chunks: BM25, and feedback from the best of them.

BM25 is as in `app/integrations/search/lexical.py`. Feedback is RM3 (N. Abdul-Jaleel et
al., "UMass at TREC 2004", section 3.2), but that an added term counts more where it is
rare, and that it orders what was found, and finds nothing more. Both databases do the
same sums on the same rows; see docs/adr/0024-knowledge-is-ranked-in-sql.md.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Float,
    FromClause,
    Integer,
    Select,
    Uuid,
    any_,
    bindparam,
    cast,
    func,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from app.integrations.search.lexical import K1, B, inverse_frequency
from app.models import Posting, ProjectDocument
from app.services.knowledge.counts import Counts

_MOST_TERMS = 40
"""Of a question: the rarest of them."""

_MOST_SCANNED = 20_000
"""Postings that are read to find candidates, the rarest terms' first. What the others
add is looked up for the candidates alone."""

_CANDIDATES = 300
_FEEDBACK = 5
"""The chunks whose terms are added to the question's."""

_CONSIDERED, _ADDED = 40, 20
"""Of these terms, how many are weighed by their rarity, and how many are added. One
that more than `MOST_HAVING` chunks have tells little, and takes long to count."""

_SHARE_ADDED = 0.5
"""What they weigh together, of all."""


class Corpus(NamedTuple):
    """A project's chunks: how many there are, and how many terms one has."""

    chunks: int
    average: float


async def corpus_of(session: AsyncSession, project_id: UUID) -> Corpus:
    found = await session.execute(_TOTALS, {"project": project_id})
    chunks, length = found.one()
    return Corpus(int(chunks), float(length) / max(int(chunks), 1))


class Ranking:
    """The order of a project's chunks for one question."""

    def __init__(
        self, session: AsyncSession, corpus: Corpus, *, counts: Counts
    ) -> None:
        self._session = session
        self._corpus = corpus
        self._counts = counts
        self._statements = _statements(session.get_bind().dialect.name)

    async def by_question(
        self, asked: Counter[int], *, at_least: int
    ) -> tuple[dict[int, float], float]:
        """The candidates and their scores by BM25, and what no score can surpass.

        `asked` counts keys of terms; those that no chunk has count in the latter.
        """
        having = await self._counts.all(self._session, asked)
        most = sum(asked[key] * self._rarity(having.get(key, 0)) for key in asked)
        rarest = sorted(having, key=lambda key: (having[key], key))[:_MOST_TERMS]
        weights = {key: asked[key] * self._rarity(having[key]) for key in rarest}
        scanned: dict[int, float] = {}
        left = _MOST_SCANNED
        for key in rarest:
            left -= having[key]
            if scanned and left < 0:
                break
            scanned[key] = weights.pop(key)
        if not scanned:
            return {}, most
        found = await self._session.execute(
            self._statements.candidates,
            {**self._given(scanned), "most": max(_CANDIDATES, at_least)},
        )
        return await self._adding(dict(found.all()), weights), most

    async def with_feedback(
        self, scores: Mapping[int, float], asked: int
    ) -> dict[int, float]:
        """The same candidates, by the best ones' terms as well; `asked` were asked."""
        if not scores:
            return {}
        added = await self._expansion(dict(best(scores, _FEEDBACK)))
        kept = (1 - _SHARE_ADDED) / asked
        rest = {chunk: kept * score for chunk, score in scores.items()}
        return await self._adding(rest, added)

    async def _expansion(self, feedback: Mapping[int, float]) -> dict[int, float]:
        """Terms that are frequent in these chunks and rare elsewhere: their weights."""
        # A score is a logarithm of odds: where one chunk answers the question, it alone
        # tells what else to look for, and where many do, each of them tells a part.
        highest = max(feedback.values())
        odds = {chunk: math.exp(score - highest) for chunk, score in feedback.items()}
        total = sum(odds.values())
        likely: dict[int, float] = defaultdict(float)
        found = await self._session.execute(
            self._statements.terms, {"chunks": list(feedback)}
        )
        for key, chunk, count, length in found:
            likely[key] += odds[chunk] / total * count / length
        considered = dict(best(likely, _CONSIDERED))
        having = await self._counts.few(self._session, considered)
        rarity = {key: self._rarity(count) for key, count in having.items()}
        added = dict(
            best({key: considered[key] * rarity[key] for key in rarity}, _ADDED)
        )
        everything = sum(added.values())
        return {
            key: _SHARE_ADDED * weight / everything * rarity[key]
            for key, weight in added.items()
        }

    async def _adding(
        self, scores: Mapping[int, float], weights: Mapping[int, float]
    ) -> dict[int, float]:
        """What these terms add to the scores of chunks that were found before."""
        summed = dict(scores)
        if weights and summed:
            found = await self._session.execute(
                self._statements.additions,
                {**self._given(weights), "chunks": list(summed)},
            )
            for chunk, score in found:
                summed[chunk] += score
        return summed

    def _rarity(self, having: int) -> float:
        # What is being indexed just now has terms, and is not counted yet.
        everywhere = max(self._corpus.chunks, having)
        return inverse_frequency(having, everywhere)

    def _given(self, weights: Mapping[int, float]) -> dict[str, Any]:
        return {
            "weights": {str(key): weight for key, weight in weights.items()},
            "norm": K1 * (1 - B),
            "slope": K1 * B / self._corpus.average,
        }


def best(scores: Mapping[int, float], count: int) -> list[tuple[int, float]]:
    # Rounded: the databases add up in different orders.
    ranked = sorted(scores, key=lambda key: (-round(scores[key], 9), key))
    return [(key, scores[key]) for key in ranked[:count]]


_TOTALS = select(
    func.coalesce(func.sum(ProjectDocument.chunks), 0),
    func.coalesce(func.sum(ProjectDocument.terms), 0),
).where(
    ProjectDocument.project_id == bindparam("project", type_=Uuid()),
    ProjectDocument.state == "ready",
)


class _Statements(NamedTuple):
    """Lists come in as one value each, so that the SQL is the same at each call."""

    candidates: Select[int, Any]
    additions: Select[int, Any]
    terms: Select[int, int, int, int]


@cache
def _statements(dialect: str) -> _Statements:
    if dialect == "sqlite":
        among, weighted = _among_in_sqlite, _weighted_in_sqlite()
    else:
        among, weighted = _among_in_postgresql, _weighted_in_postgresql()
    scoring, score = _scoring(weighted)
    additions = scoring.where(among(Posting.chunk_id, "chunks"))
    if dialect != "sqlite":
        additions = _additions_in_postgresql(weighted)
    return _Statements(
        candidates=scoring.order_by(score.desc(), Posting.chunk_id).limit(
            bindparam("most", type_=Integer())
        ),
        additions=additions,
        # In one order, for sums of what is rounded.
        terms=select(Posting.key, Posting.chunk_id, Posting.count, Posting.length)
        .where(among(Posting.chunk_id, "chunks"))
        .order_by(Posting.chunk_id, Posting.key),
    )


def _scoring(
    weighted: FromClause,
) -> tuple[Select[int, Any], ColumnElement[Any]]:
    """Each chunk that has some of the terms, and the sum of what they give it."""
    norm = bindparam("norm", type_=Float()) + (
        bindparam("slope", type_=Float()) * Posting.length
    )
    score = func.sum(weighted.c.weight * Posting.count / (Posting.count + norm))
    scoring = (
        select(Posting.chunk_id, score.label("score"))
        .join_from(weighted, Posting, Posting.key == weighted.c.key)
        .group_by(Posting.chunk_id)
    )
    return scoring, score


def _additions_in_postgresql(weighted: FromClause) -> Select[int, Any]:
    """The same of some chunks: by each key and chunk in the index.

    Left to itself, PostgreSQL walks over every key of the index for these chunks. The
    offset keeps it from joining otherwise.
    """
    posting = (
        select(Posting.chunk_id, Posting.count, Posting.length)
        .where(
            Posting.key == weighted.c.key,
            _among_in_postgresql(Posting.chunk_id, "chunks"),
        )
        .offset(0)
        .lateral("posting")
    )
    norm = bindparam("norm", type_=Float()) + (
        bindparam("slope", type_=Float()) * posting.c.length
    )
    score = func.sum(weighted.c.weight * posting.c.count / (posting.c.count + norm))
    return (
        select(posting.c.chunk_id, score)
        .select_from(weighted.join(posting, true()))
        .group_by(posting.c.chunk_id)
    )


def _among_in_sqlite(column: Any, name: str) -> ColumnElement[bool]:
    listed = func.json_each(bindparam(name, type_=JSON())).table_valued("value")
    among: ColumnElement[bool] = column.in_(select(listed.c.value))
    return among


def _among_in_postgresql(column: Any, name: str) -> ColumnElement[bool]:
    among: ColumnElement[bool] = column == any_(
        bindparam(name, type_=ARRAY(BigInteger()))
    )
    return among


def _weighted_in_sqlite() -> FromClause:
    pairs = func.json_each(bindparam("weights", type_=JSON())).table_valued(
        "key", "value"
    )
    return select(
        cast(pairs.c.key, BigInteger).label("key"), pairs.c.value.label("weight")
    ).subquery("weighted")


def _weighted_in_postgresql() -> FromClause:
    pairs = func.jsonb_each_text(bindparam("weights", type_=JSONB())).table_valued(
        "key", "value"
    )
    return select(
        cast(pairs.c.key, BigInteger).label("key"),
        cast(pairs.c.value, Float).label("weight"),
    ).subquery("weighted")
