"""A document's text as chunks: passages with the terms by which they are found."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from app.integrations.search.lexical import weighted_terms
from app.integrations.search.passages import Document, Passage, passages

_NO_MARKDOWN = frozenset(
    """
    .bat .c .cfg .conf .cpp .cs .css .csv .dart .env .go .h .hpp .ini .java .js .json
    .jsonl .jsx .kt .log .lua .php .pl .ps1 .py .pyi .r .rb .rs .scala .scss .sh .sql
    .swift .toml .ts .tsv .tsx .vue .xml .yaml .yml
    """.split()  # noqa: SIM905 - a list literal of these would fill a screen
)
"""Names of files that end so are code or figures: a # there begins no heading."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A passage of a document, the page (from 1) on which it starts, and its terms."""

    passage: Passage
    page: int | None
    terms: Counter[str]


def pieces(title: str, text: str, pages: Sequence[int]) -> Iterator[Piece]:
    """Cut a text up; the title counts as the heading above all of it."""
    markdown = PurePath(title).suffix.lower() not in _NO_MARKDOWN
    found = _found(Document(title, text, markdown=markdown))
    for passage in found:
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
