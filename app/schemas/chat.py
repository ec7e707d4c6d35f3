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


class ChatUpdate(BaseModel):
    """Fields that are left out stay as they are."""

    title: Title | None = None
    model: ModelName | None = None
    system_prompt: SystemPrompt | None = None
    archived: bool | None = None


class ChatRead(ReadModel):
    id: UUID
    title: str | None
    model: str
    system_prompt: str | None
    archived: bool
    leaf_id: UUID | None = Field(description="The newest message.")
    created_at: datetime
    updated_at: datetime
