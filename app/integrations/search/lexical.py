"""BM25, by which passages are ranked for a question: in an index, and at hand.

The ranking function is Okapi BM25 as in S. Robertson and H. Zaragoza, "The
Probabilistic Relevance Framework: BM25 and Beyond" (2009), section 3.5, with their
simple weighting of fields (section 3.6): a word of a heading counts as several words
of the text below it. The weight of a term is Lucene's, which is never negative.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

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


class Frequency(NamedTuple):
    """How many passages there are, and how many of them have each of some terms."""

    passages: int
    having: Mapping[str, int]


class Texts:
    """Passages at hand for one question, which no index holds."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._passages = [
            (p, weighted_terms(p)) for document in documents for p in passages(document)
        ]

    def search(self, query: str, limit: int, *, beside: Frequency) -> list[Hit]:
        """The best passages, best first; equal ones in the documents' order.

        What is rare is told by an index `beside`, too: among a few passages nothing is,
        and their scores would not compare with that one's.
        """
        everywhere = len(self._passages) + beside.passages
        weights = {
            term: n * inverse_frequency(self._having(term, beside), everywhere)
            for term, n in Counter(terms(query)).items()
        }
        most = sum(weights.values())
        lengths = sum(counted.total() for _, counted in self._passages)
        average = lengths / max(len(self._passages), 1) or 1.0
        hits = []
        for passage, counted in self._passages:
            norm = K1 * (1 - B + B * counted.total() / average)
            score = sum(
                weight * counted[term] / (counted[term] + norm)
                for term, weight in weights.items()
            )
            if score:
                hits.append(Hit(passage, score / most))
        return sorted(hits, key=lambda hit: -hit.score)[:limit]

    def _having(self, term: str, beside: Frequency) -> int:
        here = sum(term in counted for _, counted in self._passages)
        return here + beside.having.get(term, 0)


def inverse_frequency(having: int, everywhere: int) -> float:
    """What a term weighs that so many passages have; one that is nowhere, most."""
    return math.log1p((everywhere - having + 0.5) / (having + 0.5))


def weighted_terms(passage: Passage) -> Counter[str]:
    """How often each term counts in a passage, by its text and by its headings."""
    # The target of a link says nothing about the passage that has the link.
    counted = Counter(terms(without_links(f"{passage.lead}\n{passage.text}")))
    for level, heading in enumerate(reversed(passage.headings)):
        weight = HEADING_WEIGHTS[min(level, len(HEADING_WEIGHTS) - 1)]
        for term in terms(heading):
            counted[term] += weight
    return counted
