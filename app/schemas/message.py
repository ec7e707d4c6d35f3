from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field

from app.schemas.base import ReadModel, Text
from app.schemas.chat import ModelName


def _says_something(content: "str | list[TextBlock]") -> "str | list[TextBlock]":
    texts = [content] if isinstance(content, str) else [b.text for b in content]
    if not any(text.strip() for text in texts):
        raise ValueError("must not be empty")
    return content


class TextBlock(BaseModel):
    type: Literal["text"]
    text: Text


# A megabyte of wrong blocks must not become a gigabyte of errors: the first will do.
Blocks = Annotated[list[TextBlock], Field(max_length=1000, fail_fast=True)]


class _Content(BaseModel):
    content: Annotated[Text | Blocks, AfterValidator(_says_something)]
    stream: bool = True

    @property
    def blocks(self) -> list[dict[str, Any]]:
        if isinstance(self.content, str):
            return [{"type": "text", "text": self.content}]
        return [b.model_dump() for b in self.content if b.text.strip()]


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


class MessageRead(ReadModel):
    id: UUID
    chat_id: UUID
    parent_id: UUID | None
    role: Literal["user", "assistant"]
    content: list[dict[str, Any]]
    text: str
    model: str | None
    status: Literal["streaming", "complete", "stopped", "interrupted", "error"]
    stop_reason: str | None
    error: dict[str, Any] | None = Field(description="The problem of a failed reply.")
    usage: UsageRead | None
    credits: int = Field(description="Its price in millionths of a US dollar.")
    citations: list[CitationRead]
    sibling_ids: list[UUID] = Field(
        description="All versions at this place, itself among them, the oldest first."
    )
    rating: Literal[-1, 0, 1]
    rating_comment: str | None
    created_at: datetime


class SharedMessage(BaseModel):
    """What the holder of a link sees of a message."""

    role: Literal["user", "assistant"]
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
