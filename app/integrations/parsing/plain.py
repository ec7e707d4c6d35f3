"""Text as it is, and HTML without its tags."""

import codecs
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from app.integrations.parsing.base import Parsed, UnreadableFileError
from app.integrations.parsing.texts import Text, TooMuchText

_PIECE = 2**20
_BINARY = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_SILENT = frozenset({"script", "style", "template", "noscript", "svg", "head"})
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt",
    "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr",
    "li", "main", "nav", "ol", "p", "pre", "section", "table", "tr", "ul",
})  # fmt: skip


def parse(path: Path, mime: str) -> Parsed:
    """Raises UnreadableFileError where somewhere in it is what no text holds."""
    text = Text()
    reader = _Html(text) if mime == "text/html" else None
    kept = True
    for piece in _decoded(path):
        if _BINARY.search(piece):
            raise UnreadableFileError("is no text: it holds binary data")
        if not kept:
            continue  # it is still looked at: no part of a text may be anything else
        try:
            if reader is None:
                text.add(piece)
            else:
                reader.feed(piece)
        except TooMuchText:
            kept = False
    if reader is not None and kept:
        reader.close()
    return Parsed(mime, text=text.whole() if kept else None)


def _decoded(path: Path) -> Iterator[str]:
    """Its text in pieces: UTF-8, UTF-16 with its mark, else Windows's western one."""
    encoding = _encoding(path)
    decoder = codecs.getincrementaldecoder(encoding)()
    with path.open("rb") as file:
        try:
            while piece := file.read(_PIECE):
                yield decoder.decode(piece)
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise UnreadableFileError(f"is no text in {encoding}") from error


def _encoding(path: Path) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        if file.read(2) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
            return "utf-16"
        file.seek(0)
        try:
            while piece := file.read(_PIECE):
                decoder.decode(piece)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8-sig"


class _Html(HTMLParser):
    """What a reader sees; headings as Markdown has them."""

    def __init__(self, text: Text) -> None:
        super().__init__(convert_charrefs=True)
        self._text = text
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        del attrs
        if tag in _SILENT:
            self._silent += 1
        elif tag in _BLOCKS:
            self._text.add("\n")
            if re.fullmatch("h[1-6]", tag):
                self._text.add("#" * int(tag[1]) + " ")
        elif tag in {"td", "th"}:
            self._text.add(" | ")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag in _BLOCKS:
            self._text.add("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._text.add(re.sub(r"\s+", " ", data))
