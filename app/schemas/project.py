from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.schemas.base import Line, ReadModel, Shape, Text
from app.schemas.user import Email

ContextMode = Annotated[
    Literal["auto", "full", "retrieval"],
    Field(
        description="Whether chats get all of the documents, or what fits a question. "
        "`auto`: all of them while they fit."
    ),
]
MemberRole = Literal["editor", "viewer"]
TokenLimit = Annotated[
    int,
    Field(
        ge=0,
        le=2**31 - 1,
        description="How much of the documents one turn may get to see; by default "
        "what the model's context window has room for.",
    ),
]
ProjectName = Annotated[Line, Field(max_length=200)]
Instructions = Annotated[Text, Field(max_length=100_000)]
DocumentTitle = Annotated[Line, Field(max_length=255)]
DocumentText = Annotated[
    Text,
    Field(
        max_length=5_000_000,
        description="Markdown, or code where the title ends like a file of code.",
    ),
    Shape(r"[\s\S]*\S[\s\S]*", "must be more than white space"),
]


class ProjectCreate(BaseModel):
    name: ProjectName
    instructions: Instructions | None = None
    token_limit: TokenLimit | None = None
    context_mode: ContextMode = "auto"


class ProjectUpdate(BaseModel):
    """Fields that are left out stay as they are."""

    name: ProjectName | None = None
    instructions: Instructions | None = None
    token_limit: TokenLimit | None = None
    context_mode: ContextMode | None = None
    archived: bool | None = None


class ProjectRead(ReadModel):
    id: UUID
    name: str
    instructions: str | None
    token_limit: int | None
    context_mode: str
    archived: bool
    role: Literal["owner", "editor", "viewer"] = Field(
        description="What the one who asks is in it."
    )
    documents: int
    tokens: int = Field(description="Of all documents, estimated.")
    created_at: datetime
    updated_at: datetime


class MemberCreate(BaseModel):
    """Somebody who has an account here, by one of the two."""

    email: Email | None = None
    username: Annotated[Line, Field(max_length=32)] | None = None
    role: MemberRole = "viewer"

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.email is None) == (self.username is None):
            raise ValueError("send either `email` or `username`")
        return self


class MemberUpdate(BaseModel):
    role: MemberRole


class MemberRead(ReadModel):
    user_id: UUID
    username: str | None
    full_name: str | None
    role: Literal["owner", "editor", "viewer"]
    created_at: datetime


class DocumentCreate(BaseModel):
    """A file of one's own, or a text with a title."""

    file_id: UUID | None = None
    title: DocumentTitle | None = Field(None, description="By default the file's name.")
    text: DocumentText | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        pasted = self.title is not None and self.text is not None
        if (self.file_id is None and not pasted) or (
            self.file_id is not None and self.text is not None
        ):
            raise ValueError("send either `file_id`, or `title` and `text`")
        return self


class DocumentUpdate(BaseModel):
    """Fields that are left out stay as they are."""

    model_config = ConfigDict(extra="forbid")

    title: DocumentTitle | None = None
    text: DocumentText | None = None


class DocumentRead(ReadModel):
    id: UUID
    project_id: UUID
    file_id: UUID | None
    title: str
    state: Literal["pending", "indexing", "ready", "failed"] = Field(
        description="It is found once it is ready; what failed is tried again."
    )
    progress: float = Field(description="How much of it is indexed, 0 to 1.")
    characters: int
    tokens: int = Field(description="Estimated.")
    chunks: int = Field(description="Passages that are indexed.")
    created_at: datetime
    updated_at: datetime


class DocumentWithText(DocumentRead):
    text: str


class DocumentName(ReadModel):
    id: UUID
    title: str


class FoundRead(BaseModel):
    """A passage: `text` equals the document's text from `start` to `end`."""

    document: DocumentName
    text: str
    start: int
    end: int
    page: int | None = Field(description="From 1, where the document has pages.")
    score: float
    lead: str = Field(description="The head of the table that it is a row of, or none.")


class SearchRead(BaseModel):
    items: list[FoundRead]
