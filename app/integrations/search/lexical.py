"""A BM25 index over passages, in memory, and what any such index goes by.

The ranking function is Okapi BM25 as in S. Robertson and H. Zaragoza, "The
Probabilistic Relevance Framework: BM25 and Beyond" (2009), section 3.5, with their
simple weighting of fields (section 3.6): a word of a heading counts as several words
of the text below it. The weight of a term is Lucene's, which is never negative.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from app.integrations.search.passages import Document, Passage, passages, without_links
from app.integrations.search.words import terms

K1, B = 1.2, 0.75
HEADING_WEIGHTS = (3, 2, 1)
"""What a word counts in the nearest heading, the one above it, and all the others."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A found passage.

    `score` is the share, 0 to 1, of the highest score that the query could reach
    anywhere, so it compares across queries; its words that no document has count.
    """

    passage: Passage
    score: float


class SearchIndex(Protocol):
    """What is asked of an index, wherever it keeps its passages."""

    def search(self, query: str, limit: int) -> list[Hit]:
        """The best passages, best first; equal ones in the documents' order."""


class LexicalIndex:
    """BM25 over passages; immutable once built, so threads may share it.

    What is rare is told `beside` another index, too: among a few passages nothing is,
    and their scores would not compare with that one's.
    """

    def __init__(
        self, documents: Iterable[Document], *, beside: "LexicalIndex | None" = None
    ) -> None:
        self._beside = beside
        self._passages = [p for d in documents for p in passages(d)]
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        lengths: list[int] = []
        counts: list[Counter[str]] = []
        for passage in self._passages:
            counted = weighted_terms(passage)
            counts.append(counted)
            lengths.append(counted.total())
        average = sum(lengths) / max(len(lengths), 1) or 1.0
        for number, counted in enumerate(counts):
            norm = K1 * (1 - B + B * lengths[number] / average)
            for term, count in counted.items():
                share = count / (count + norm)
                self._postings[term].append((number, share))

    def search(self, query: str, limit: int) -> list[Hit]:
        wanted = Counter(terms(query))
        best = sum(n * self._weight(term) for term, n in wanted.items())
        scores: dict[int, float] = defaultdict(float)
        for term, n in wanted.items():
            gain = n * self._weight(term)
            for number, share in self._postings.get(term, ()):
                scores[number] += gain * share
        ranked = sorted(scores, key=lambda number: (-scores[number], number))
        return [Hit(self._passages[n], scores[n] / best) for n in ranked[:limit]]

    def frequency(self, term: str) -> tuple[int, int]:
        """How many passages have a term, and how many there are; beside, too."""
        having, everywhere = len(self._postings.get(term, ())), len(self._passages)
        if self._beside is None:
            return having, everywhere
        others_having, others = self._beside.frequency(term)
        return having + others_having, everywhere + others

    def _weight(self, term: str) -> float:
        having, everywhere = self.frequency(term)
        return inverse_frequency(having, everywhere=everywhere)


def inverse_frequency(having: int, *, everywhere: int) -> float:
    """What a term weighs that so many passages have; one that is nowhere, most."""
    return math.log1p((everywhere - having + 0.5) / (having + 0.5))


def weighted_terms(passage: Passage) -> Counter[str]:
    """How often each term counts in a passage, by its text and by its headings."""
    # The target of a link says nothing about the passage that has the link.
    counted = Counter(terms(without_links(passage.text)))
    for level, heading in enumerate(reversed(passage.headings)):
        weight = HEADING_WEIGHTS[min(level, len(HEADING_WEIGHTS) - 1)]
        for term in terms(heading):
            counted[term] += weight
    return counted
