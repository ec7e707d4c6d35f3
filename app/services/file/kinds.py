"""What a file is, by its first bytes; of texts, by its name which kind of text."""

import re
from pathlib import PurePath
from typing import NamedTuple

from app.core.exceptions import UnsupportedMediaTypeError
from app.integrations.parsing.base import DOCX, PDF, PPTX, XLSX, ZIP

HEAD = 4096
"""Bytes that are looked at."""


class Kind(NamedTuple):
    mime: str
    kind: str


_SIGNATURES = (
    (rb"\x89PNG\r\n\x1a\n", Kind("image/png", "image")),
    (rb"\xff\xd8\xff", Kind("image/jpeg", "image")),
    (rb"GIF8[79]a", Kind("image/gif", "image")),
    (rb"RIFF....WEBP", Kind("image/webp", "image")),
    (rb"%PDF-", Kind(PDF, "document")),
    (rb"PK\x03\x04", Kind(ZIP, "document")),
)
_BY_NAME = {
    ".md": Kind("text/markdown", "document"),
    ".markdown": Kind("text/markdown", "document"),
    ".html": Kind("text/html", "document"),
    ".htm": Kind("text/html", "document"),
    ".svg": Kind("image/svg+xml", "document"),
    ".csv": Kind("text/csv", "data"),
    ".tsv": Kind("text/tab-separated-values", "data"),
    ".json": Kind("application/json", "data"),
    ".jsonl": Kind("application/jsonl", "data"),
}
_TEXT = Kind("text/plain", "document")
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

_OF_OFFICE = {DOCX: "document", PPTX: "document", XLSX: "data"}


def of(head: bytes, name: str) -> Kind:
    """Raises UnsupportedMediaTypeError for what is none of those that are taken.

    An office document is a ZIP archive until its inside is looked at.
    """
    for signature, kind in _SIGNATURES:
        if re.match(signature, head, re.DOTALL):
            return kind
    if head.startswith(_OLD_OFFICE):
        raise UnsupportedMediaTypeError(
            "This is an office document of the old binary kind, or an encrypted one: "
            "save it as docx, xlsx or pptx, without a password."
        )
    if _BINARY.search(head) and not head.startswith(_UTF16):
        raise UnsupportedMediaTypeError(
            "This is none of the files that are taken, whatever its name says: png, "
            "jpeg, gif, webp, pdf, docx, xlsx, pptx, and text of any kind are."
        )
    return _BY_NAME.get(PurePath(name).suffix.lower(), _TEXT)


def of_parsed(mime: str, kind: str) -> str:
    """The kind of what has been looked into."""
    return _OF_OFFICE.get(mime, kind)
