from pathlib import Path

import pypdfium2
from pypdfium2 import PdfDocument, PdfiumError

from app.integrations.parsing import images
from app.integrations.parsing.base import (
    PDF,
    THUMBNAIL_NAME,
    Parsed,
    UnreadableFileError,
)
from app.integrations.parsing.texts import Text, TooMuchText

_THUMBNAIL_PIXELS = 640
"""The longer side of the page as it is drawn, before it is made smaller."""

_PASSWORD = pypdfium2.raw.FPDF_ERR_PASSWORD


def parse(path: Path, folder: Path) -> Parsed:
    document = _opened(path)
    count = len(document)
    text = Text()
    found: str | None = None
    try:
        for number in range(count):
            text.begin_page()
            text.add(_text(document, number))
        found = text.whole()
    except TooMuchText:
        pass
    return Parsed(
        PDF,
        text=found,
        pages=text.pages if found is not None else [],
        page_count=count,
        thumbnail=folder / THUMBNAIL_NAME if _drawn(document, folder) else None,
    )


def _opened(path: Path) -> PdfDocument:
    try:
        return PdfDocument(path)
    except PdfiumError as error:
        if error.err_code == _PASSWORD:
            raise UnreadableFileError(
                "is encrypted: upload it without a password"
            ) from error
        raise UnreadableFileError("is a broken PDF, or one without pages") from error


def _text(document: PdfDocument, number: int) -> str:
    try:
        page = document[number]
        found = page.get_textpage().get_text_bounded()
        page.close()
    except PdfiumError as error:
        raise UnreadableFileError(f"is a broken PDF, at page {number + 1}") from error
    return f"{found}\n\n"


def _drawn(document: PdfDocument, folder: Path) -> bool:
    """Whether its first page could be drawn; one that cannot be may still be read."""
    try:
        page = document[0]
        longest = max(*page.get_size(), 1.0)
        image = page.render(scale=_THUMBNAIL_PIXELS / longest).to_pil()
    except (PdfiumError, ValueError):
        return False
    images.write_thumbnail(image, folder)
    return True
