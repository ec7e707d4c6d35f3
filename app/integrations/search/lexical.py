"""Passages of Markdown documents, and a BM25 index over them in memory.

The ranking function is Okapi BM25 as in S. Robertson and H. Zaragoza, "The
Probabilistic Relevance Framework: BM25 and Beyond" (2009), section 3.5, with their
simple weighting of fields (section 3.6): a word of a heading counts as several words
of the text below it. The weight of a term is Lucene's, which is never negative.
"""

import math
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

K1, B = 1.2, 0.75
HEADING_WEIGHTS = (3, 2, 1)
"""What a word counts in the nearest heading, the one above it, and all the others."""

PASSAGE_CHARS = 2000
"""A section up to this length is one passage; the blocks of a longer one are joined up
to it. A code block stays whole and with the paragraph before it, however long."""

TABLE_CHARS = 1200
"""A longer table is cut up: each of its rows answers a question of its own."""


@dataclass(frozen=True, slots=True)
class Document:
    """A Markdown text; `source` names it, e.g. by its path."""

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A span of a document: `text` equals the document's text from `start` to `end`.

    `headings` is the path of titles above it, outermost first, and `anchor` the
    nearest one's as in a link. Rows of a long table are passages of their own; their
    `lead` is the table's head, without which they cannot be read.
    """

    source: str
    headings: tuple[str, ...]
    anchor: str
    text: str
    start: int
    end: int
    lead: str = ""


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
    """BM25 over passages; immutable once built, so threads may share it."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._passages = [p for d in documents for p in passages(d)]
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        lengths: list[int] = []
        counts: list[Counter[str]] = []
        for passage in self._passages:
            counted = _weighted_terms(passage)
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

    def _weight(self, term: str) -> float:
        """The inverse document frequency; a term that is nowhere weighs most."""
        having, everywhere = len(self._postings.get(term, ())), len(self._passages)
        return math.log1p((everywhere - having + 0.5) / (having + 0.5))


def _weighted_terms(passage: Passage) -> Counter[str]:
    # The target of a link says nothing about the passage that has the link.
    counted = Counter(terms(_LINK.sub(r"\1", passage.text)))
    for level, heading in enumerate(reversed(passage.headings)):
        weight = HEADING_WEIGHTS[min(level, len(HEADING_WEIGHTS) - 1)]
        for term in terms(heading):
            counted[term] += weight
    return counted


# Words ------------------------------------------------------------------------------

STOP_WORDS = frozenset(
    """
    a able about after all also am an and any anything are aren as at be because
    been before being both but by can cannot could couldn did didn do does doesn
    doing don each every everything few first for from further get gets getting give
    given gives go going got had happen happens has hasn have haven having he hello
    her here hers hey hi him his how however i if in into is isn it its itself just
    kind know let like ll lot made make makes many may me mean means might more most
    much must my need needs no not now of off on once one only onto or other our
    ours out over own per please possible put really s same say says see shall she
    should shouldn since so some something still such sure take tell than thank
    thanks that the their theirs them then there these they thing things this those
    though through thus till to too tried try trying under until up upon us use used
    uses using ve very via want wants was wasn way we well were weren what when
    where whether which while who whom whose why will with within without won work
    working works would wouldn yes yet you your yours
    """.split()  # noqa: SIM905 - a list literal of these would fill two screens
)

_WORD = re.compile(r"\w+")
_APOSTROPHE = re.compile(r"(?<=\w)['\u2019]\w+")
_PARTS = re.compile(r"_+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_TWO_WORDS = re.compile(
    r"\b(?:(log|sign)(?:g?ing|g?ed)?[ -](in|out|up|off)"
    r"|(set|back|start)(?:t?ing|ed)?[ -](up)"
    r"|(shut)(?:ting)?[ -](down))\b",
    re.IGNORECASE,
)
_SAME = {
    "signin": "login",
    "signoff": "logout",
    "signout": "logout",
    "signup": "register",
    "logoff": "logout",
}


def terms(text: str) -> list[str]:
    """The searchable words of a text: lower case, stemmed, without stop words.

    Lone letters and digits count as stop words. An identifier counts as one word and
    as its parts: AWS_REGION, getUserName. A verb in two words is one: "log in" is
    login.
    """
    text = _TWO_WORDS.sub(lambda m: "".join(filter(None, m.groups())), text)
    found: list[str] = []
    for word in _WORD.findall(_APOSTROPHE.sub("", text)):
        parts = [part for part in _PARTS.split(word) if part]
        for token in [word, *parts] if len(parts) > 1 else parts:
            lower = token.lower()
            letter = len(lower) == 1 and lower.isascii()
            if not letter and lower not in STOP_WORDS:
                found.append(_stem(_SAME.get(lower, lower)))
    return found


_stems: dict[str, str] = {}
_stemming = threading.Lock()
_STEMS_KEPT = 20_000


def _stem(word: str) -> str:
    """The English stem, of Porter's second algorithm; at most 20,000 are kept."""
    known = _stems.get(word)
    if known is None:
        import snowballstemmer  # noqa: PLC0415 - 3 MB that an idle server does without

        with _stemming:  # a stemmer holds the word it works on
            known = snowballstemmer.stemmer("english").stemWord(word)
        if len(_stems) < _STEMS_KEPT:
            _stems[word] = known
    return known


# Passages ---------------------------------------------------------------------------

_LINE = re.compile(r"[^\n]*\n|[^\n]+\Z")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?\s*$")
_ITEM = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])[ \t]")
_STARTS = {
    "code": _FENCE,
    "heading": _HEADING,
    "table": re.compile(r"\|"),
    "list": _ITEM,
}
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    start: int
    end: int

    @property
    def blank(self) -> bool:
        return not self.text.strip()


@dataclass(slots=True)
class _Block:
    """Whole lines that belong together; `kind` says how."""

    kind: str
    lines: list[_Line]
    lead: str = ""

    @property
    def start(self) -> int:
        return self.lines[0].start

    @property
    def end(self) -> int:
        return self.lines[-1].end

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def introduces(self) -> bool:
        return self.lines[-1].text.rstrip().endswith(":")


def passages(document: Document) -> Iterator[Passage]:
    """Cut a document up by its structure; understands headings written with #."""
    path: list[tuple[int, str]] = []
    anchors: Counter[str] = Counter()
    anchor = ""
    section: list[_Block] = []
    for block in _blocks(document.text):
        if block.kind != "heading":
            section.append(block)
            continue
        yield from _section(document, path, anchor, section)
        section = []
        level, title = _title(block)
        path = [(above, t) for above, t in path if above < level] + [(level, title)]
        anchor = slug(title)
        anchors[anchor] += 1
        if anchors[anchor] > 1:
            anchor += f"-{anchors[anchor] - 1}"
    yield from _section(document, path, anchor, section)


def slug(title: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


def _title(block: _Block) -> tuple[int, str]:
    match = _HEADING.match(block.lines[0].text)
    assert match
    return len(match[1]), _LINK.sub(r"\1", match[2] or "").replace("`", "").strip()


def _section(
    document: Document, path: list[tuple[int, str]], anchor: str, blocks: list[_Block]
) -> Iterator[Passage]:
    for group in _groups(blocks):
        span = document.text[group[0].start : group[-1].end]
        text = span.rstrip()
        yield Passage(
            source=document.source,
            headings=tuple(title for _, title in path),
            anchor=anchor,
            text=text,
            start=group[0].start,
            end=group[0].start + len(text),
            lead=group[0].lead,
        )


def _groups(blocks: list[_Block]) -> Iterator[list[_Block]]:
    group: list[_Block] = []
    for block in (small for big in blocks for small in _split(big)):
        if group and not _joins(group, block):
            yield group
            group = []
        group.append(block)
    if group:
        yield group


def _joins(group: list[_Block], block: _Block) -> bool:
    before = group[-1]
    if block.kind == "row" or before.kind == "row":
        return False
    if before.introduces or (block.kind == "code" and before.kind == "text"):
        return True
    return block.end - group[0].start <= PASSAGE_CHARS


def _split(block: _Block) -> list[_Block]:
    """A long table by rows, a long list by items; all else stays whole."""
    long_table = block.kind == "table" and block.size > TABLE_CHARS
    if long_table and len(block.lines) > 2:  # noqa: PLR2004 - the names and the rule
        lead = "".join(line.text for line in block.lines[:2]).rstrip()
        return [_Block("row", [line], lead) for line in block.lines[2:]]
    if block.kind == "list" and block.size > PASSAGE_CHARS:
        starts = [i for i, x in enumerate(block.lines) if _ITEM.match(x.text)]
        return [
            _Block("list", block.lines[first:after])
            for first, after in pairwise([0, *starts[1:], len(block.lines)])
        ]
    return [block]


def _blocks(text: str) -> Iterator[_Block]:
    """The blocks of a text, in order; blank lines belong to none.

    An open block is one whose next line may still belong to it.
    """
    open_block: _Block | None = None
    fence = ""
    for match in _LINE.finditer(text):
        line = _Line(match[0], match.start(), match.end())
        kind = "code" if fence else _kind(line, open_block)
        if open_block and (kind in {"heading", "blank"} or kind != open_block.kind):
            yield _closed(open_block)
            open_block = None
        if kind == "heading":
            yield _Block(kind, [line])
        elif kind != "blank":
            if open_block is None:
                open_block = _Block(kind, [])
            open_block.lines.append(line)
        if kind == "code":
            fence = _fence_after(line, fence)
            if not fence:
                assert open_block
                yield _closed(open_block)
                open_block = None
    if open_block:
        yield _closed(open_block)


def _closed(block: _Block) -> _Block:
    while block.lines[-1].blank and len(block.lines) > 1:
        block.lines.pop()
    return block


def _kind(line: _Line, before: _Block | None) -> str:
    in_list = before is not None and before.kind == "list"
    if in_list and (line.blank or line.text[0] in " \t"):
        return "list"  # blank lines and indented ones, code too, stay in the list
    if line.blank:
        return "blank"
    for kind, pattern in _STARTS.items():
        if pattern.match(line.text):
            return kind
    lazy = in_list and before is not None and not before.lines[-1].blank
    return "list" if lazy else "text"


def _fence_after(line: _Line, fence: str) -> str:
    """The fence that is open after a line of code; "" where it closes one."""
    match = _FENCE.match(line.text)
    if not fence:
        assert match
        return match[1]
    closes = match and match[1].startswith(fence) and match[1] == line.text.strip()
    return "" if closes else fence
