"""Documents cut up by their structure, into passages that can be found and cited."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath

PASSAGE_CHARS = 2000
"""A section up to this length is one passage; the blocks of a longer one are joined up
to it. A code block stays with the paragraph before it."""

LONGEST_CHARS = 4000
"""No passage is longer. A block that would be is cut at its lines, a paragraph already
where it is longer than a passage should be; a long line at its sentences."""

TABLE_CHARS = 1200
"""A longer table is cut up, for each of its rows answers a question of its own."""

ROWS_CHARS = 300
"""Its rows are joined up to this length, else a large sheet would be as many passages
as it has rows."""

_NO_MARKDOWN = frozenset(
    """
    .bat .c .cfg .conf .cpp .cs .css .csv .dart .env .go .h .hpp .ini .java .js .json
    .jsonl .jsx .kt .log .lua .php .pl .ps1 .py .pyi .r .rb .rs .scala .scss .sh .sql
    .swift .toml .ts .tsv .tsx .vue .xml .yaml .yml
    """.split()  # noqa: SIM905 - a list literal of these would fill a screen
)
"""Names of files that end so are code or figures: a # there begins no heading."""

_TABLES = frozenset((".csv", ".tsv"))


@dataclass(frozen=True, slots=True)
class Document:
    """A text; `source` names it, e.g. by its path.

    Where it is no Markdown, only its blank lines tell what belongs together; where it
    is a `table`, the first of its lines is the head of all others. One that is itself a
    passage of another has that one's `lead`.
    """

    source: str
    text: str
    markdown: bool = True
    table: bool = False
    lead: str = ""


@dataclass(frozen=True, slots=True)
class Passage:
    """A span of a document: `text` equals the document's text from `start` to `end`.

    `headings` is the path of titles above it, outermost first, and `anchor` the
    nearest one's as in a link. A long table is several passages; their `lead` is the
    table's head, without which their rows cannot be read.
    """

    source: str
    headings: tuple[str, ...]
    anchor: str
    text: str
    start: int
    end: int
    lead: str = ""


_LINE = re.compile(r"[^\n]*\n|[^\n]+\Z")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?\s*$")
_ITEM = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])[ \t]")
_STARTS = {
    "code": _FENCE,
    "heading": _HEADING,
    "list": _ITEM,
    "table": re.compile(r"\||.*? \| "),
}
_RULE = re.compile(r"[-:| \t]+$")
_SENTENCE = re.compile(r"[.!?]+[\"')\]]*\s+|[\u3002\uff01\uff1f]")
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


def document_named(name: str, text: str, *, lead: str = "") -> Document:
    """A text that is read as what its name ends like."""
    ending = PurePath(name).suffix.lower()
    markdown, table = ending not in _NO_MARKDOWN, ending in _TABLES
    return Document(name, text, markdown=markdown, table=table, lead=lead)


def passages(document: Document) -> Iterator[Passage]:
    """Cut a document up by its structure; understands headings written with #."""
    path: list[tuple[int, str]] = []
    anchors: Counter[str] = Counter()
    anchor = ""
    section: list[_Block] = []
    for block in _blocks(document):
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


def section_at(document: Document, place: int) -> tuple[tuple[str, ...], str]:
    """The titles above a character of a passage, and the nearest one's anchor."""
    found: tuple[tuple[str, ...], str] = (), ""
    for passage in passages(document):
        if passage.start > place:
            break
        found = passage.headings, passage.anchor
    return found


def without_links(text: str) -> str:
    """The same with the words of links alone."""
    return _LINK.sub(r"\1", text)


def slug(title: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


def _title(block: _Block) -> tuple[int, str]:
    match = _HEADING.match(block.lines[0].text)
    assert match
    return len(match[1]), without_links(match[2] or "").replace("`", "").strip()


def _section(
    document: Document, path: list[tuple[int, str]], anchor: str, blocks: list[_Block]
) -> Iterator[Passage]:
    for group in _groups(blocks):
        span = document.text[group[0].start : group[-1].end]
        text = span.rstrip()
        if not text:  # nothing but white space, of a line that was cut
            continue
        yield Passage(
            source=document.source,
            headings=tuple(title for _, title in path),
            anchor=anchor,
            text=text,
            start=group[0].start,
            end=group[0].start + len(text),
            lead=group[0].lead or document.lead,
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
        fits = block.end - group[0].start <= ROWS_CHARS
        return fits and block.kind == before.kind and block.lead == before.lead
    if block.end - group[0].start > LONGEST_CHARS:
        return False
    if before.introduces or (block.kind == "code" and before.kind == "text"):
        return True
    return block.end - group[0].start <= PASSAGE_CHARS


def _split(block: _Block) -> list[_Block]:
    """A long table by rows, a long list by items, what is too long by its lines."""
    if block.kind == "table" and block.size > TABLE_CHARS:
        head = _head(block)
        lead = "".join(line.text for line in head).rstrip()
        return [
            small
            for line in block.lines[len(head) :]
            for small in _cut(_Block("row", [line], lead))
        ]
    if block.kind == "list" and block.size > PASSAGE_CHARS:
        starts = [i for i, x in enumerate(block.lines) if _ITEM.match(x.text)]
        return [
            small
            for first, after in pairwise([0, *starts[1:], len(block.lines)])
            for small in _cut(_Block("list", block.lines[first:after]))
        ]
    return _cut(block)


def _head(table: _Block) -> list[_Line]:
    """The names of the columns, and the rule below them; nothing where that is long."""
    names, *rows = table.lines
    if not rows or names.end - names.start > TABLE_CHARS:
        return []
    return table.lines[: 2 if _RULE.match(rows[0].text.rstrip()) else 1]


def _cut(block: _Block) -> list[_Block]:
    """Its lines, one by one, where it is too long to be a passage: `_groups` joins."""
    if block.size <= (PASSAGE_CHARS if block.kind == "text" else LONGEST_CHARS):
        return [block]
    return [
        _Block(block.kind, [piece], block.lead)
        for line in block.lines
        for piece in _pieces(line)
    ]


def _pieces(line: _Line) -> Iterator[_Line]:
    """A long line cut behind a sentence, a word, or anywhere."""
    begin = 0
    while len(line.text) - begin > PASSAGE_CHARS:
        window = line.text[begin : begin + PASSAGE_CHARS]
        ends = [m.end() for m in _SENTENCE.finditer(window, PASSAGE_CHARS // 2)]
        size = ends[-1] if ends else window.rfind(" ") + 1 or len(window)
        start = line.start + begin
        yield _Line(window[:size], start, start + size)
        begin += size
    yield _Line(line.text[begin:], line.start + begin, line.end)


def _blocks(document: Document) -> Iterator[_Block]:
    """The blocks of a text, in order; blank lines belong to none.

    An open block is one whose next line may still belong to it.
    """
    open_block: _Block | None = None
    fence = ""
    for match in _LINE.finditer(document.text):
        line = _Line(match[0], match.start(), match.end())
        if document.markdown:
            kind = "code" if fence else _kind(line, open_block)
        else:
            kind = "table" if document.table else "text"
            kind = "blank" if line.blank else kind
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
