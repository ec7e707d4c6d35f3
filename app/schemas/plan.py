from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.base import Line, ReadModel, Shape

_MOST = 2**53 - 1
"""What JavaScript's numbers hold exactly."""
_MOST_SMALL = 2**31 - 1

PlanName = Annotated[
    str,
    Shape(
        r"^[a-z][a-z0-9_-]{0,31}$",
        "must be 1 to 32 small letters, digits, dashes or underscores, and begin with "
        "a letter",
    ),
    Field(description="1 to 32 small letters, digits, dashes; a letter first."),
]
Small = Annotated[int, Field(ge=0, le=_MOST_SMALL)]
Large = Annotated[int, Field(ge=0, le=_MOST)]
ModelPatterns = Annotated[
    list[Annotated[Line, Field(max_length=200)]],
    Field(
        max_length=1000,
        description="Names of models, in which * stands for any characters.",
    ),
]


class LimitsUpdate(BaseModel):
    """Null is no limit."""

    model_config = ConfigDict(extra="forbid")

    daily_conversations: Small | None = Field(
        None, description="Messages sent to a model in a day, which begins at 0:00 UTC."
    )
    monthly_credits: Large | None = Field(
        None,
        description="What the balance is filled up to when a month begins, in "
        "millionths of a US dollar.",
    )
    requests_per_minute: Annotated[Small, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[Small, Field(ge=1)] | None = None
    storage_bytes: Large | None = None
    file_bytes: Large | None = None
    project_tokens: Small | None = None
    models: ModelPatterns | None = None


class PlanCreate(LimitsUpdate):
    name: PlanName


class PlanUpdate(LimitsUpdate):
    """Fields that are left out stay as they are."""


class PlanRead(ReadModel):
    id: UUID
    name: str
    daily_conversations: int | None
    monthly_credits: int | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    storage_bytes: int | None
    file_bytes: int | None
    project_tokens: int | None
    models: list[str] | None
    created_at: datetime
    updated_at: datetime


class PlanAssignment(BaseModel):
    plan: PlanName
