import base64
import binascii
import re
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
)

from app.integrations.parsing.base import MAX_IMAGE_BYTES
from app.models.message import Message, attachments_of, in_order, text_of
from app.schemas.base import Line, ReadModel, Text
from app.schemas.chat import ModelName

MAX_DOCUMENT_BYTES = 4_500_000
"""What every provider takes of a document: Bedrock's limit, the lowest."""

MAX_FILES = 20
"""Files with one message."""

_SIGNATURES = {
    "image/png": rb"\x89PNG\r\n\x1a\n",
    "image/jpeg": rb"\xff\xd8\xff",
    "image/gif": rb"GIF8[79]a",
    "image/webp": rb"RIFF....WEBP",
    "application/pdf": rb"%PDF-",
}
"""What a file of that type begins with."""


def _is_what_it_says(source: "ImageSource | PdfSource") -> Any:
    limit = (
        MAX_IMAGE_BYTES
        if source.media_type.startswith("image/")
        else MAX_DOCUMENT_BYTES
    )
    try:
        data = base64.b64decode(source.data, validate=True)
    except binascii.Error:
        raise ValueError("`data` is no base64") from None
    if len(data) > limit:
        raise ValueError(f"is larger than {limit:,} bytes")
    if not re.match(_SIGNATURES[source.media_type], data, re.DOTALL):
        raise ValueError(f"`data` is no {source.media_type}")
    return source


def _says_something(
    content: "str | list[AnyBlock]", told: ValidationInfo
) -> "str | list[AnyBlock]":
    if told.data.get("file_ids"):
        return content
    if isinstance(content, str):
        content_says = bool(content.strip())
    else:
        content_says = any(b.type != "text" or b.text.strip() for b in content)
    if not content_says:
        raise ValueError("must not be empty")
    return content


class TextBlock(BaseModel):
    type: Literal["text"]
    text: Text


class ImageSource(BaseModel):
    """The bytes themselves: Workroom fetches nothing from addresses that users give."""

    type: Literal["base64"]
    media_type: Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
    data: str = Field(description=f"At most {MAX_IMAGE_BYTES:,} bytes, in base64.")


class ImageBlock(BaseModel):
    type: Literal["image"]
    source: Annotated[ImageSource, AfterValidator(_is_what_it_says)]


class PdfSource(BaseModel):
    type: Literal["base64"]
    media_type: Literal["application/pdf"]
    data: str = Field(description=f"At most {MAX_DOCUMENT_BYTES:,} bytes, in base64.")


class TextSource(BaseModel):
    type: Literal["text"]
    media_type: Literal["text/plain"] = "text/plain"
    data: Text


class DocumentBlock(BaseModel):
    type: Literal["document"]
    source: Annotated[
        Annotated[PdfSource, AfterValidator(_is_what_it_says)] | TextSource,
        Field(discriminator="type"),
    ]
    title: Annotated[Line, Field(max_length=200)] | None = None


AnyBlock = Annotated[
    TextBlock | ImageBlock | DocumentBlock, Field(discriminator="type")
]

# A megabyte of wrong blocks must not become a gigabyte of errors: the first will do.
Blocks = Annotated[list[AnyBlock], Field(max_length=1000, fail_fast=True)]


class _Content(BaseModel):
    # Before the content, which may be empty beside files.
    file_ids: Annotated[list[UUID], Field(max_length=MAX_FILES)] = Field(
        [], description="Files that go with the message, each of them ready."
    )
    content: Annotated[
        Annotated[Text, Tag("str")] | Annotated[Blocks, Tag("list[Block]")],
        # So that an error tells of the form that was meant, and not of both.
        Discriminator(lambda told: "str" if isinstance(told, str) else "list[Block]"),
        AfterValidator(_says_something),
    ]
    stream: bool = True

    @property
    def blocks(self) -> list[dict[str, Any]]:
        if isinstance(self.content, str):
            blocks = [{"type": "text", "text": self.content}]
            return blocks if self.content.strip() else []
        return [
            block.model_dump(exclude_none=True)
            for block in self.content
            if block.type != "text" or block.text.strip()
        ]


class MessageCreate(_Content):
    parent_id: UUID | None = Field(
        None, description="The message to follow; by default the chat's newest."
    )
    model: ModelName | None = Field(None, description="By default the chat's.")


class MessageEdit(_Content):
    """What the user's message says in its new branch."""


class Continuation(BaseModel):
    stream: bool = True


class Regeneration(Continuation):
    model: ModelName | None = Field(None, description="By default the chat's.")


class Rating(BaseModel):
    value: Literal[-1, 0, 1] = Field(description="0 takes the rating back.")
    comment: Annotated[Text, Field(max_length=2000)] | None = None


class UsageRead(BaseModel):
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    estimated: bool = Field(
        default=False, description="Figures of ours, where the provider sent none."
    )


class CitationRead(BaseModel):
    """`quote` stands in `source` from `start` to `end`, counted in characters."""

    source: str
    quote: str
    start: int
    end: int
    page: int | None = Field(None, description="From 1, where the source has pages.")


class MessageCitation(CitationRead):
    source_id: UUID | None = Field(
        None, description="The project's document, or the file; null for the manual."
    )


_CITATION_DEFAULTS = {"page": None, "source_id": None}
"""Of citations that are older than these."""


def _as_told(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Stored blocks as clients know them: the input of a tool as an object.

    Files are told as `attachments`.
    """
    return [
        _with_input(b) if b["type"] == "tool_use" else b
        for b in content
        if b["type"] != "file"
    ]


def _with_input(block: dict[str, Any]) -> dict[str, Any]:
    """Where it is no object, such as one cut off, `input_json` stays, too."""
    try:
        given = orjson.loads(block["input_json"] or "{}")
    except orjson.JSONDecodeError:
        given = None
    if not isinstance(given, dict):
        return {**block, "input": {}}
    return {**{k: v for k, v in block.items() if k != "input_json"}, "input": given}


class AttachmentRead(BaseModel):
    """A file that went with a message; it may be deleted since."""

    id: UUID
    name: str
    mime: str
    kind: Literal["image", "document", "data"]
    size: int


class MessageRead(ReadModel):
    id: UUID
    chat_id: UUID
    parent_id: UUID | None
    role: Literal["user", "assistant"]
    content: Annotated[list[dict[str, Any]], BeforeValidator(_as_told)]
    text: str
    attachments: list[AttachmentRead]
    model: str | None
    status: Literal["streaming", "complete", "stopped", "interrupted", "error"]
    stop_reason: str | None
    error: dict[str, Any] | None = Field(
        description="The problem of a reply that failed, or was stopped by nobody."
    )
    usage: UsageRead | None
    credits: int = Field(description="Its price in millionths of a US dollar.")
    citations: list[MessageCitation]
    sibling_ids: list[UUID] = Field(
        description="All versions at this place, itself among them, the oldest first."
    )
    rating: Literal[-1, 0, 1]
    rating_comment: str | None
    created_at: datetime


_COMPUTED = {"text", "attachments", "sibling_ids"}
MESSAGE_COLUMNS = (
    *(name for name in MessageRead.model_fields if name not in _COMPUTED),
    "siblings",
)
"""Of `models.Message`: what `message_row` needs."""

_USAGE_DEFAULTS = {
    name: field.default
    for name, field in UsageRead.model_fields.items()
    if not field.is_required()
}


def message_row(row: dict[str, Any]) -> dict[str, Any]:
    """What `MessageRead` makes of `MESSAGE_COLUMNS`, changed in place and unchecked.

    Checking what the database holds costs more than reading it.
    """
    siblings: str = row.pop("siblings")
    row["sibling_ids"] = in_order(siblings) if " " in siblings else [row["id"]]
    row["text"] = text_of(row["content"])
    row["attachments"] = attachments_of(row["content"])
    row["content"] = _as_told(row["content"])
    row["citations"] = [_CITATION_DEFAULTS | cited for cited in row["citations"]]
    row["usage"] = row["usage"] and _USAGE_DEFAULTS | row["usage"]
    return row


def message_json(message: Message) -> bytes:
    """A message of ours as `MessageRead` tells it, unchecked like `message_row`."""
    row = message_row({name: getattr(message, name) for name in MESSAGE_COLUMNS})
    return orjson.dumps(row, default=str, option=orjson.OPT_UTC_Z)


class SharedMessage(BaseModel):
    """What the holder of a link sees of a message."""

    role: Literal["user", "assistant"]
    content: list[dict[str, Any]] = Field(
        description="Its texts and images as blocks, and its documents by their title."
    )
    text: str
    model: str | None
    citations: list[CitationRead]
    created_at: datetime


class SharedRead(BaseModel):
    """A shared branch, the first message first, all on one page."""

    title: str | None
    created_at: datetime = Field(description="When it was shared.")
    items: list[SharedMessage]
    next_cursor: str | None = None
