from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from app.schemas.base import ReadModel
from app.schemas.user import Email, FullName, NewPassword, Username

Kind = Literal["admin", "staff"]
Permission = Literal[
    "users",
    "staff",
    "plans",
    "credits",
    "models",
    "logs",
    "audit",
    "settings",
    "jobs",
]
Level = Annotated[
    int,
    Field(
        ge=1,
        le=3,
        description="1: look at accounts and limits. 2: also unlock, resend mails, "
        "reset today's limits. 3: also suspend, restore, adjust credits, read message "
        "logs.",
    ),
]
Status = Literal["active", "suspended"]


class DeskAccountCreate(BaseModel):
    email: Email
    username: Username
    full_name: FullName | None = None
    password: NewPassword


class AdminCreate(DeskAccountCreate):
    permissions: frozenset[Permission]


class StaffCreate(DeskAccountCreate):
    level: Level


class DeskAccountRead(ReadModel):
    id: UUID
    email: str
    username: str
    full_name: str | None
    status: Status
    created_at: datetime


class AdminRead(DeskAccountRead):
    permissions: list[Permission]


class StaffRead(DeskAccountRead):
    level: Level
