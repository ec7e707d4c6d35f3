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
_MOST_LOOKUPS = 1000
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
_ALIKE = {
    # Who quotes what has quotation marks in it writes others than stand there.
    "'": '"’‘‚‛´`′″“”„‟«»‹›',  # noqa: RUF001 - what looks alike is the point
    "-": "‐‑‒–—―−",  # noqa: RUF001 - the same
    " ": "".join(filter(str.isspace, map(chr, range(0x3001)))),
}
_PLAIN = {ord(one): plain for plain, forms in _ALIKE.items() for one in forms}
_LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st",
              "ﬆ": "st"}  # fmt: skip
# The first are a word's hyphens at the end of a line, in HTML and in PDFium's texts.
_UNEVEN = re.compile(rf"[\u00ad\ufffe] *| {{2,}}|-{{2,}}|[{''.join(_LIGATURES)}]")


def _even(found: re.Match[str]) -> str:
    sign = found[0][0]
    return "" if sign in "\u00ad\ufffe" else _LIGATURES.get(sign, sign)


def folded(text: str) -> str:
    """The same for texts that differ in white space, marks and ligatures alone."""
    return _UNEVEN.sub(_even, text.translate(_PLAIN)).strip()


class _Searched:
    """A source in which quotes are looked up as they are `folded`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        plain = source.text.translate(_PLAIN)  # as many characters
        self._text = _UNEVEN.sub(_even, plain)
        self._places, self._shifts = [0], [0]
        """From each place in `_text` on, how many characters more stand before it."""
        for uneven in _UNEVEN.finditer(plain):
            place, length = uneven.start() - self._shifts[-1], len(_even(uneven))
            # All letters of a ligature stand where that does.
            for letter in range(1, length):
                self._map(place + letter, uneven.start())
            self._map(place + length, uneven.end())

    def _map(self, place: int, original: int) -> None:
        self._places.append(place)
        self._shifts.append(original - place)

    def find(self, quote: str) -> Citation | None:
        wanted = folded(quote)
        if not any(map(str.isalnum, wanted)):
            return None
        # Not all scripts have spaces; only a short word is often a part of another one.
        whole = len(wanted) < _LONG_ENOUGH and wanted.isascii()
        start = self._text.find(wanted)
        while whole and start >= 0 and not self._stands_alone(start, wanted):
            start = self._text.find(wanted, start + 1)
        if start < 0:
            return None
        last = start + len(wanted) - 1
        return _citation(self.source, self._original(start), self._original(last) + 1)

    def _stands_alone(self, start: int, wanted: str) -> bool:
        around = self._text[max(start - 1, 0) : start + len(wanted) + 1]
        return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", around) is not None

    def _original(self, place: int) -> int:
        return place + self._shifts[bisect_right(self._places, place) - 1]


class Quotes:
    """Reads one reply as it grows; `known` are the citations that it has already."""

    def __init__(
        self, sources: Sequence[Source], *, text: str, known: Iterable[dict[str, Any]]
    ) -> None:
        self._sources = sources
        self._searched: dict[int, _Searched] = {}
        *before, self._open = text.split(_PARAGRAPH)
        """The paragraph that is being written."""
        self._begun: list[tuple[re.Pattern[str], str]] = []
        """Quotations that no paragraph has ended so far, and what ends them."""
        for paragraph in before:
            list(self._across(paragraph))
        self._cited = {(c["source"], c["start"], c["end"]) for c in known}
        self._left = _MOST_LOOKUPS

    def read(self, text: str) -> Iterator[Citation]:
        """The citations of the paragraphs that end with this piece of text."""
        self._open += text
        if _PARAGRAPH in self._open:
            *whole, self._open = self._open.split(_PARAGRAPH)
            for paragraph in whole:
                yield from self._of(paragraph)

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

    def _of(self, paragraph: str) -> Iterator[Citation]:
        quotes = list(self._across(paragraph))
        found: list[Citation | None] = []
        for block in _BLOCK.finditer(paragraph):
            said, name = _said(block)
            whole = self._parts(said, name)
            found += whole
            if None not in whole:  # and what stands in it is a part of that
                paragraph = paragraph.replace(block[0], "")
            elif "\n" in said:  # it may be of several places
                quotes += [(line, name) for line in said.split("\n")]
        for quote, name in (*quotes, *_quoted(paragraph)):
            found += self._parts(quote, name)
        for citation in found:
            if citation and (new := self._new(citation)):
                yield new

    def _parts(self, quote: str, name: str) -> list[Citation | None]:
        return [self._find(part, name) for part in _GAP.split(quote) if part]

    def _new(self, citation: Citation) -> Citation | None:
        place = (citation.source, citation.start, citation.end)
        if place in self._cited:
            return None
        self._cited.add(place)
        return citation

    def _across(self, paragraph: str) -> Iterator[tuple[str, str]]:
        """The quotations that began before this paragraph and end in it.

        Each mark is taken for what it may be: one that was none finds no such text.
        """
        begun, self._begun = self._begun, _left_open(paragraph)
        for pattern, before in begun:
            text = f"{before}{_PARAGRAPH}{paragraph}"
            if match := pattern.match(text):
                yield match["quote"], match["name"] or ""
            elif text.count(before[0], len(before)) == 0 and len(text) <= _LONGEST:
                self._begun.append((pattern, text))

    def _find(self, quote: str, name: str) -> Citation | None:
        named = [n for n, s in enumerate(self._sources) if _is_called(s, name)]
        enough = len(quote) >= _LONG_ENOUGH or len(quote.split()) >= _WORDS_ENOUGH
        numbers = dict.fromkeys(
            [*named, *range(len(self._sources))] if enough else named
        )
        # With what writers add: their own full stop, and emphasis.
        ended, bare = quote.rstrip(_ENDS), _EMPHASIS.sub("", quote)
        for wanted in dict.fromkeys((quote, ended, bare)):
            for number in numbers:
                if self._left <= 0:
                    return None
                self._left -= 1
                if found := self._source(number).find(wanted):
                    return found
        return None

    def _source(self, number: int) -> _Searched:
        if number not in self._searched:
            self._searched[number] = _Searched(self._sources[number])
        return self._searched[number]


def _quoted(text: str) -> Iterator[tuple[str, str]]:
    """Each quotation and the name behind it, if there is one."""
    for pattern in _QUOTED:
        for match in pattern.finditer(text):
            yield match["quote"], match["name"] or ""


def _said(block: re.Match[str]) -> tuple[str, str]:
    """What a Markdown quotation says, and the name behind it."""
    said, name = _MARK.sub("", block["quote"]).strip(), block["name"] or ""
    if not name and (within := _NAME_WITHIN.search(said)):
        said, name = said[: within.start()], within["name"]
    return said, name


def _left_open(paragraph: str) -> list[tuple[re.Pattern[str], str]]:
    """From each mark on that begins a quotation and has none that ends it."""
    found = []
    for pattern, (a, b) in zip(_QUOTED, _PAIRS, strict=True):
        start = paragraph.rfind(a)
        marks, others = paragraph.count(a), paragraph.count(b)
        is_open = marks % 2 == 1 if a == b else marks > others
        if is_open and b not in paragraph[start + 1 :]:
            found.append((pattern, paragraph[start:]))
    return found


def _is_called(source: Source, name: str) -> bool:
    return bool(name) and name.strip().casefold() == source.name.casefold()


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
