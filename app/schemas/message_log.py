from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from app.schemas.base import ReadModel, Text
from app.schemas.user import LoginName

Short = Annotated[Text, Field(max_length=200)]


class MessageLogFilter(BaseModel):
    """Which calls of models a list shows."""

    user_id: UUID | None = None
    username: LoginName | None = Field(
        None, description="The user's name or e-mail address, in the place of the id."
    )
    kind: Short | None = Field(None, description="chat, title, gateway, ...")
    model: Short | None = None
    status: Short | None = Field(
        None, description="complete, stopped, error, cached, ..."
    )
    since: AwareDatetime | None = None
    until: AwareDatetime | None = Field(
        None, description="Up to this moment, not at it."
    )


class MessageLogRead(ReadModel):
    id: UUID
    created_at: datetime
    user_id: UUID
    username: str
    kind: str
    model: str
    input_tokens: int
    output_tokens: int
    credits: int
    latency_ms: int
    status: str


class MessageLogText(MessageLogRead):
    messages: list[Any] | None = Field(
        description="What was asked and answered; null where that is not kept."
    )


class TextKeeping(BaseModel):
    """Whether message logs keep the text of a user's calls."""

    keep_text: bool
