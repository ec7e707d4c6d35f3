"""A document's text as chunks: passages with the terms by which they are found."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from app.integrations.search.lexical import weighted_terms
from app.integrations.search.passages import (
    Document,
    Passage,
    document_named,
    passages,
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A passage of a document, the page (from 1) on which it starts, and its terms."""

    passage: Passage
    page: int | None
    terms: Counter[str]


def pieces(title: str, text: str, pages: Sequence[int]) -> Iterator[Piece]:
    """Cut a text up; the title counts as the heading above all of it."""
    for passage in _found(document_named(title, text)):
        titled = replace(passage, headings=(title, *passage.headings))
        page = bisect_right(pages, passage.start) or None if pages else None
        yield Piece(passage, page, weighted_terms(titled))


def _found(document: Document) -> Iterator[Passage]:
    some = False
    for passage in passages(document):
        some = True
        yield passage
    if not some and document.markdown:  # nothing but headings is still something
        yield from passages(replace(document, markdown=False))
