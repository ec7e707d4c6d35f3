from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from app.schemas.base import Line
from app.schemas.user import GivenPassword, Username

Reason = Annotated[Line, Field(max_length=500)]


class OwnDeletion(BaseModel):
    password: GivenPassword | None = Field(
        None,
        description="Needed, but by accounts without one: these need a login of the "
        "last 10 minutes.",
    )
    reason: Reason | None = None


class Deletion(BaseModel):
    reason: Reason | None = None


class Restoration(BaseModel):
    username: Username | None = Field(
        None, description="Another name, where somebody has the account's by now."
    )


class DeletedUserRead(BaseModel):
    """The fields of the person are null where the key that sealed them is lost."""

    id: UUID
    email: str | None
    username: str | None
    full_name: str | None
    reason: str | None
    deleted_by: Literal["user", "staff", "admin", "system"]
    deleted_by_id: UUID | None
    deleted_at: datetime
    purge_at: datetime = Field(description="From then on it is erased for good.")


class ErasureReport(BaseModel):
    """What an erasure did, and what it could not reach."""

    user_id: UUID
    erased_at: datetime
    rows: dict[str, int] = Field(description="How many went, by table.")
    backups_expire_at: datetime = Field(
        description="When the last backup that holds the person is due to go."
    )
    tuned_models: list[str] = Field(
        description="Models tuned on what was erased: they may still know it."
    )
