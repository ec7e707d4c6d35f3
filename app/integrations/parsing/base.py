"""Looking into a file: what it is, the text in it, a small picture of it."""

from dataclasses import dataclass, field
from pathlib import Path

from app.core.exceptions import AppError

ZIP = "application/zip"
"""What an office document is called until its inside was looked at."""

PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"

TEXT_NAME, THUMBNAIL_NAME, SCALED_NAME = "text", "thumbnail", "scaled"
"""What a parser writes beside its result, into the folder that it is given."""

THUMBNAIL_MIME = SCALED_MIME = "image/webp"

MAX_IMAGE_BYTES = 3_750_000
"""What every provider takes of an image: Bedrock's limit, the lowest."""

MAX_IMAGE_EDGE = 8000
"""The same in pixels of its longer side. What is beyond either is scaled."""


class UnreadableFileError(AppError):
    """A file that is refused; `detail` says why, as the end of `The file ...`."""

    status, code, title = 422, "unreadable_file", "The file cannot be read"


@dataclass(frozen=True, slots=True)
class Parsed:
    """`pages` are the offsets in `text` at which pages start.

    `text` is None where there is none, or more than is kept; `scaled` where models take
    the image as it is.
    """

    mime: str
    text: str | None = None
    pages: list[int] = field(default_factory=list)
    page_count: int | None = None
    width: int | None = None
    height: int | None = None
    thumbnail: Path | None = None
    scaled: Path | None = None
