"""What a reply quotes of the sources that it was given, as citations.

A model is asked to put the source's exact words in quotation marks, or in a Markdown
quotation, and the source's name in brackets behind them. Whatever it does: what stands
so in the reply is looked up in the sources, and a citation is made of what is there,
in the source's own characters. What is not there is no citation.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from app.integrations.llm.base import Citation, Source

ASK_FOR_QUOTES = (
    "Where your answer rests on one of them, quote it word for word, in the language "
    'that it is in, in double quotation marks, with its name in brackets behind: "the '
    'exact words" [its name]. Put nothing in quotation marks that does not stand there.'
)

_PARAGRAPH = "\n\n"
_MOST_LOOKUPS = 300
"""Of one reply: looking a quote up takes time, and others wait."""

_LONGEST = 4000  # characters of a quote
_LONG_ENOUGH = 16
_WORDS_ENOUGH = 3
"""A shorter quote counts only where the name of its source stands behind it."""

_NAME = r"\s*[\[(](?P<name>[^\])\n]{1,300})[\])]"
_PAIRS = (
    ('"', '"'), ("“", "”"), ("„", "“"), ("«", "»"), ("»", "«"), ("「", "」"),
)  # fmt: skip
_QUOTED = [
    re.compile(rf"{a}(?P<quote>[^{a}{b}]{{1,{_LONGEST}}})(?={b}(?:{_NAME})?)")
    for a, b in _PAIRS
]
_BLOCK = re.compile(rf"(?P<quote>(?:^ {{0,3}}>.*(?:\n|\Z))+)(?:{_NAME})?", re.MULTILINE)
_NAME_WITHIN = re.compile(rf"{_NAME}\W*\Z")
_MARK = re.compile(r"^ {0,3}> ?", re.MULTILINE)
_GAP = re.compile(r"\s*(?:\[\s*)?(?:\.{3}|…)(?:\s*\])?\s*")
_EMPHASIS = re.compile(r"\*\*|__")
_ENDS = ".,;:!?"
_ALIKE = ("'’‘´`", '"“”„«»', "-‐‑–—")  # noqa: RUF001 - what looks alike is the point
_FORMS = {one: f"[{re.escape(all_)}]" for all_ in _ALIKE for one in all_}


class Quotes:
    """Reads one reply as it grows; `known` are the citations that it has already."""

    def __init__(
        self, sources: Sequence[Source], *, text: str, known: Iterable[dict[str, Any]]
    ) -> None:
        self._sources = sources
        self._open = text.rpartition(_PARAGRAPH)[2]
        """The paragraph that is being written."""
        self._cited = {(c["source"], c["start"], c["end"]) for c in known}
        self._left = _MOST_LOOKUPS

    def read(self, text: str) -> Iterator[Citation]:
        """The citations of the paragraphs that end with this piece of text."""
        self._open += text
        if _PARAGRAPH in self._open:
            whole, _, self._open = self._open.rpartition(_PARAGRAPH)
            yield from self._of(whole)

    def rest(self) -> Iterator[Citation]:
        """Those of the paragraph that the reply ends with."""
        yield from self._of(self._open)

    def check(self, told: Citation) -> Citation | None:
        """A citation that the provider itself made, if it is true."""
        for source in self._sources:
            start, end = told.start - source.start, told.end - source.start
            if source.name == told.source and source.text[start:end] == told.quote:
                return self._new(_citation(source, start, end))
        return None

    def _of(self, text: str) -> Iterator[Citation]:
        for quote, name in _quoted(text):
            for part in _GAP.split(quote):
                if (found := self._find(part, name)) and (new := self._new(found)):
                    yield new

    def _new(self, citation: Citation) -> Citation | None:
        place = (citation.source, citation.start, citation.end)
        if place in self._cited:
            return None
        self._cited.add(place)
        return citation

    def _find(self, quote: str, name: str) -> Citation | None:
        named = [s for s in self._sources if _is_called(s, name)]
        enough = len(quote) >= _LONG_ENOUGH or len(quote.split()) >= _WORDS_ENOUGH
        sources = [*named, *self._sources] if enough else named
        # With what writers add: their own full stop, and emphasis.
        ended, bare = quote.rstrip(_ENDS), _EMPHASIS.sub("", quote)
        for wanted in dict.fromkeys((quote, ended, bare)):
            for source in sources:
                if self._left <= 0:
                    return None
                self._left -= 1
                if place := _place(wanted, source.text):
                    return _citation(source, *place)
        return None


def _quoted(text: str) -> Iterator[tuple[str, str]]:
    """Each quotation and the name behind it, if there is one."""
    for pattern in _QUOTED:
        for match in pattern.finditer(text):
            yield match["quote"], match["name"] or ""
    for match in _BLOCK.finditer(text):
        said, name = _MARK.sub("", match["quote"]).strip(), match["name"] or ""
        if not name and (within := _NAME_WITHIN.search(said)):
            said, name = said[: within.start()], within["name"]
        yield said, name
        if "\n" in said:  # else it may be of several places
            yield from ((line, name) for line in said.split("\n"))


def _is_called(source: Source, name: str) -> bool:
    return bool(name) and name.strip().casefold() == source.name.casefold()


def _place(quote: str, text: str) -> tuple[int, int] | None:
    """Where it stands in a text, but for white space and the forms of marks."""
    words = quote.split()
    if not any(map(str.isalnum, quote)):
        return None
    # Nearly all that is not there is told by one word, in a fraction of the time.
    plain = [word for word in words if not _FORMS.keys() & set(word)]
    if plain and max(plain, key=len) not in text:
        return None
    pattern = r"\s+".join("".join(map(_form, word)) for word in words)
    found = re.search(rf"(?<!\w){pattern}(?!\w)", text)
    # Not all scripts have spaces; only a short word is often a part of another one.
    if found is None and (len(quote) >= _LONG_ENOUGH or not quote.isascii()):
        found = re.search(pattern, text)
    return found.span() if found else None


def _form(character: str) -> str:
    return _FORMS.get(character) or re.escape(character)


def _citation(source: Source, start: int, end: int) -> Citation:
    page = bisect_right(source.pages, source.start + start) or source.page
    return Citation(
        source=source.name,
        quote=source.text[start:end],
        start=source.start + start,
        end=source.start + end,
        page=page or None,
        source_id=source.id,
    )
