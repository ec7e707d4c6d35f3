from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from app.schemas.base import ReadModel
from app.schemas.chat import ModelName


class ContextQuery(BaseModel):
    q: str = Field(
        "", max_length=4000, description="What one would ask. Nothing is sent."
    )
    model: ModelName | None = Field(
        None, description="By default the chat's, or else the default one."
    )


class UsedRead(ReadModel):
    name: str
    tokens: int = Field(description="Estimated, on the safe side.")


class DroppedRead(UsedRead):
    reason: str


class ShareRead(ReadModel):
    """What one source got of the budget."""

    origin: Literal[
        "system", "instructions", "memory", "knowledge", "attachments", "history"
    ]
    tokens: int
    mode: Literal["full", "retrieval"] | None = Field(
        description="Of knowledge: whole documents, or passages that fit the question."
    )
    used: list[UsedRead]
    dropped: list[DroppedRead]


class QuotableRead(ReadModel):
    """A text that the reply may quote: `text` stands in the source from `start` on."""

    name: str
    text: str
    start: int
    page: int | None
    id: UUID | None


class SentMessage(ReadModel):
    role: Literal["user", "assistant"]
    content: list[dict[str, Any]]


class ContextRead(BaseModel):
    """What a turn would send to a model, and how its budget was shared out."""

    model: str
    context_window: int
    max_output_tokens: int
    budget: int = Field(description="Of tokens: the window without the answer.")
    tokens: int = Field(description="Of all that is sent.")
    sources: list[ShareRead] = Field(description="In the order of the budget.")
    system: str
    messages: list[SentMessage]
    quotable: list[QuotableRead]
