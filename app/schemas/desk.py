from datetime import datetime
from typing import Annotated, Any, Literal
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
JobState = Literal["queued", "running", "succeeded", "dead"]
UserStatus = Literal["active", "suspended", "archived", "deleted"]


class DeskAccountCreate(BaseModel):
    email: Email
    username: Username
    full_name: FullName | None = None
    password: NewPassword


class AdminCreate(DeskAccountCreate):
    permissions: frozenset[Permission]


class StaffCreate(DeskAccountCreate):
    level: Level


class DeskAccountUpdate(BaseModel):
    """Fields that are left out stay as they are; a new password ends all sessions."""

    full_name: FullName | None = None
    password: NewPassword | None = None
    status: Status | None = None


class AdminUpdate(DeskAccountUpdate):
    permissions: frozenset[Permission] | None = None


class StaffUpdate(DeskAccountUpdate):
    level: Level | None = None


class UserImport(BaseModel):
    """An account that is made for somebody."""

    email: Email
    username: Username | None = None
    full_name: FullName | None = None


class UserCreateByAdmin(UserImport):
    password: NewPassword | None = Field(
        None, description="Left out, the owner chooses one by a link that is mailed."
    )


class ImportReport(BaseModel):
    created: int


class JobRead(ReadModel):
    """A background job; `dead` is one that has failed for good."""

    id: UUID
    name: str
    args: dict[str, Any]
    state: JobState
    attempts: int
    max_attempts: int
    error: str | None
    run_at: datetime
    created_at: datetime
    finished_at: datetime | None


class Stats(BaseModel):
    """What an installation has, counted now."""

    users: dict[str, int] = Field(description="By status.")
    new_users: dict[str, int] = Field(description="Of the last day, week and month.")
    active_sessions: int
    chats: int
    messages_today: int = Field(description="Since midnight UTC.")
    jobs: dict[str, int] = Field(description="By state.")


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
