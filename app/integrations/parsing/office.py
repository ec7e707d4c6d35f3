"""Office Open XML: docx, xlsx and pptx, each a ZIP of XML.

Reference: ECMA-376. Headings become Markdown's, rows of tables lines with ` | ` between
the cells, so that who cuts a text into chunks sees its structure.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from docx import Document
from docx.table import Table
from lxml import etree
from openpyxl import load_workbook

from app.integrations.parsing.base import (
    DOCX,
    PPTX,
    XLSX,
    Parsed,
    UnreadableFileError,
)
from app.integrations.parsing.texts import Text, TooMuchText

_MOST_ENTRIES = 10_000
_MOST_UNPACKED = 256 * 2**20
_MAIN_PARTS = {
    "word/document.xml": DOCX,
    "xl/workbook.xml": XLSX,
    "ppt/presentation.xml": PPTX,
}
_SLIDE = re.compile(r"ppt/slides/slide(\d+)\.xml")
_PARAGRAPH = "{http://schemas.openxmlformats.org/drawingml/2006/main}p"
_RUN = "{http://schemas.openxmlformats.org/drawingml/2006/main}t"


def parse(path: Path) -> Parsed:
    try:
        with ZipFile(path) as archive:
            mime = _checked(archive)
    except (BadZipFile, OSError, NotImplementedError) as error:
        raise UnreadableFileError("is a broken ZIP archive") from error
    text = Text()
    found: str | None = None
    try:
        _READERS[mime](path, text)
        found = text.whole()
    except TooMuchText:
        pass
    except MemoryError:
        raise
    # A damaged document makes the libraries stumble in ways that nobody can list.
    except Exception as error:
        raise UnreadableFileError(
            "is a broken office document, or too large"
        ) from error
    return Parsed(
        mime,
        text=found,
        pages=text.pages if found is not None else [],
        page_count=len(text.pages) or None,
    )


def _checked(archive: ZipFile) -> str:
    """Its type; what is unpacked is never more than the archive says of itself."""
    entries = archive.infolist()
    if len(entries) > _MOST_ENTRIES:
        raise UnreadableFileError(f"holds {len(entries):,} files: too many")
    if sum(entry.file_size for entry in entries) > _MOST_UNPACKED:
        raise UnreadableFileError(
            f"unpacks to more than {_MOST_UNPACKED:,} bytes, as no document does"
        )
    names = {entry.filename for entry in entries}
    if any(entry.flag_bits & 1 for entry in entries):
        raise UnreadableFileError("is encrypted: upload it without a password")
    if any(name.lower().endswith("vbaproject.bin") for name in names):
        raise UnreadableFileError("holds macros: upload it without them")
    found = [mime for part, mime in _MAIN_PARTS.items() if part in names]
    if len(found) != 1 or "[Content_Types].xml" not in names:
        raise UnreadableFileError(
            "is a ZIP archive and no docx, xlsx or pptx: upload what is in it"
        )
    for entry in entries:
        if entry.filename.endswith((".xml", ".rels")):
            with archive.open(entry) as part:
                # No office document has a DTD, and entities are only declared in one.
                if b"<!DOCTYPE" in part.read(4096):
                    raise UnreadableFileError("declares XML entities")
    return found[0]


def _docx(path: Path, text: Text) -> None:
    for block in Document(str(path)).iter_inner_content():
        if isinstance(block, Table):
            for row in block.rows:
                text.add(_line(cell.text for cell in row.cells))
            text.add("\n")
            continue
        style = (block.style.name or "") if block.style is not None else ""
        level = re.fullmatch(r"Heading ([1-6])", style)
        mark = "#" * int(level[1]) + " " if level else ""
        if block.text.strip():
            text.add(f"{mark}{block.text}\n\n")


def _xlsx(path: Path, text: Text) -> None:
    with path.open("rb") as file:  # of a path it would want a name that it knows
        workbook = load_workbook(file, read_only=True, data_only=True)
        for sheet in workbook.worksheets:
            text.add(f"# {sheet.title}\n\n")
            sheet.reset_dimensions()
            for row in sheet.iter_rows(values_only=True):
                if any(value is not None for value in row):
                    text.add(
                        _line("" if value is None else str(value) for value in row)
                    )
            text.add("\n")


def _pptx(path: Path, text: Text) -> None:
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    with ZipFile(path) as archive:
        slides = sorted(
            (int(found[1]), name)
            for name in archive.namelist()
            if (found := _SLIDE.fullmatch(name))
        )
        for _number, name in slides:
            text.begin_page()
            root = etree.fromstring(archive.read(name), parser)
            text.add("".join(f"{line}\n" for line in _paragraphs(root)) + "\n")


def _paragraphs(root: etree._Element) -> Iterator[str]:
    for paragraph in root.iter(_PARAGRAPH):
        if line := "".join(run.text or "" for run in paragraph.iter(_RUN)).strip():
            yield line


def _line(cells: Iterable[str]) -> str:
    return " | ".join(cell.replace("\n", " ").strip() for cell in cells) + "\n"


_READERS = {DOCX: _docx, XLSX: _xlsx, PPTX: _pptx}
