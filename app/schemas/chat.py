from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from app.schemas.base import Line, ReadModel, Text

Title = Annotated[Line, Field(max_length=200)]
ModelName = Annotated[
    Line, Field(max_length=200, description="provider/id, as GET /models lists it.")
]
SystemPrompt = Annotated[Text, Field(max_length=100_000)]


class ChatCreate(BaseModel):
    title: Title | None = None
    model: ModelName | None = None
    system_prompt: SystemPrompt | None = None
    project_id: UUID | None = Field(
        None, description="A project that one is in, for its chats to lean on."
    )
    temporary: bool = Field(
        default=False,
        description="In no list and no search; deleted a day after its last use.",
    )


class ChatUpdate(BaseModel):
    """Fields that are left out stay as they are."""

    title: Title | None = None
    model: ModelName | None = None
    system_prompt: SystemPrompt | None = None
    archived: bool | None = None
    pinned: bool | None = None
    leaf_id: UUID | None = Field(
        None,
        description="A message: the branch through it is shown, down to the newest "
        "message there.",
    )


class ChatFork(BaseModel):
    message_id: UUID | None = Field(
        None, description="The last message to copy; by default the newest shown."
    )
    title: Title | None = Field(None, description="By default the chat's own.")


class ChatRead(ReadModel):
    id: UUID
    title: str | None
    model: str
    system_prompt: str | None
    project_id: UUID | None
    archived: bool
    pinned: bool
    temporary: bool
    leaf_id: UUID | None = Field(
        description="The last message of the branch that is shown."
    )
    created_at: datetime
    updated_at: datetime


class ShareRead(BaseModel):
    id: UUID
    token: str = Field(description="Shown this once; only its hash is stored.")
    url: str = Field(description="A page for people; GET /shared/{token} is its JSON.")
    created_at: datetime
