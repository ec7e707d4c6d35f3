import unicodedata
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter

from app.schemas.base import ReadModel

_LONGEST_NAME = 255
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_KEPT_MARKS = frozenset("\u200c\u200d")
"""Joiners, which the spelling of some languages needs, and emoji."""


def _plain(name: str) -> str:
    """A name as people can read it: no path, nothing that hides or turns its letters.

    Marks of direction make `gpj.exe` of what looks like `exe.jpg`.
    """
    if "/" in name or "\\" in name:
        raise ValueError("must be a name without a path: no / and no \\")
    if not name.strip() or name.strip(". ") == "":
        raise ValueError("must not be empty")
    for sign in name:
        if unicodedata.category(sign) in _UNSEEN and sign not in _KEPT_MARKS:
            raise ValueError(
                f"holds U+{ord(sign):04X}, which cannot be seen: leave it out"
            )
    return name.strip()


FileName = Annotated[str, Field(max_length=_LONGEST_NAME), AfterValidator(_plain)]
FILE_NAME: TypeAdapter[str] = TypeAdapter(FileName)


class FileUpdate(BaseModel):
    name: FileName


class FileRead(ReadModel):
    id: UUID
    name: str
    mime: str = Field(description="By its content.")
    kind: Literal["image", "document", "data"]
    size: int = Field(description="In bytes.")
    sha256: str
    status: Literal["pending", "ready", "rejected"] = Field(
        description="pending until it was looked into."
    )
    reason: str | None = Field(description="Why it was rejected.")
    width: int | None = Field(description="Of an image, in pixels.")
    height: int | None
    pages: int | None = Field(description="Of a document that has any.")
    has_text: bool
    has_thumbnail: bool
    created_at: datetime
    updated_at: datetime


class FileTextRead(BaseModel):
    name: str
    text: str
    pages: list[int] = Field(
        description="The offsets in `text`, in characters, at which pages start."
    )


class DownloadUrl(BaseModel):
    url: str = Field(description="Good without a login: give it to nobody else.")
    expires_at: datetime
