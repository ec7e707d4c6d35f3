from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from app.schemas.base import ReadModel, Text


class AuditFilter(BaseModel):
    """Which events a list shows."""

    action: Annotated[Text, Field(max_length=64)] | None = Field(
        None, description="`user.suspend`, or `user` for all that was done to users."
    )
    actor_id: UUID | None = None
    target_id: UUID | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = Field(
        None, description="Up to this moment, not at it."
    )


class AuditEventRead(ReadModel):
    seq: int = Field(description="Its number in the chain; none is missing.")
    created_at: datetime
    actor_kind: str = Field(description="user, staff, admin, service or system.")
    actor_id: UUID | None
    action: str
    target_kind: str | None
    target_id: UUID | None
    details: dict[str, Any] | None = Field(
        description="`ip`, `before` and `after`, as far as there is any; null where "
        "the person was erased."
    )
