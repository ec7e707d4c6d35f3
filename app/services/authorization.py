"""Who may see what: the one place where lists and look-ups get their owner."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Select,
    exists,
    or_,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer
from sqlalchemy.sql.base import ExecutableOption

from app.core.database import utcnow
from app.core.exceptions import ForbiddenError, NotFoundError
from app.models import (
    ApiKey,
    Base,
    Chat,
    File,
    KeyLimits,
    Message,
    Project,
    ProjectDocument,
    ProjectMember,
    User,
    UserSession,
)

M = TypeVar("M", bound=Base)

_FRESH = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking: a user, by way of one of their sessions or API keys."""

    user_id: UUID
    session_id: UUID
    """Of the session, or of the key that stands for one."""
    must_enroll: bool = False
    """Whether a second factor is asked for that was not there when this was read."""
    authenticated_at: datetime | None = None
    """When they last proved who they are, where a session tells."""
    scopes: frozenset[str] | None = None
    """What a key is confined to; who is logged in is to nothing."""
    key: KeyLimits | None = None
    """The API key that they come by, and what it may use."""


def visible_to(principal: Principal, model: type[M]) -> Select[M]:
    """Every row of `model` that the principal may see; each query starts from it."""
    return select(model).where(owned(model, principal.user_id))


def owned(model: type[Base], owner: UUID | BindParameter[UUID]) -> ColumnElement[bool]:
    """The same as a condition, for a statement that is built once and used by all."""
    if model is Message:
        mine = select(Chat.id).where(Chat.user_id == owner)
        return Message.chat_id.in_(mine)
    if model is Project:
        return _member_of_project(owner)
    if model is ProjectDocument:
        projects = select(Project.id).where(_member_of_project(owner))
        there = ProjectDocument.state != "deleted"
        return ProjectDocument.project_id.in_(projects) & there
    column: ColumnElement[bool] = _OWNERS[model] == owner
    return column


def _member_of_project(user: UUID | BindParameter[UUID]) -> ColumnElement[bool]:
    """Their own projects, and those that they are in, unless the owner is gone."""
    joined = select(ProjectMember.project_id).where(ProjectMember.user_id == user)
    return or_(Project.user_id == user, Project.id.in_(joined)) & _project_is_there()


def _project_is_there() -> ColumnElement[bool]:
    owner_there = exists().where(User.id == Project.user_id, User.status != "deleted")
    return owner_there & Project.deleted.is_(False)


def members_of(
    projects: Iterable[UUID], users: Iterable[UUID]
) -> CompoundSelect[UUID, UUID]:
    """Which of these users are in which of these projects, as (project, user).

    For work that has begun: what it leans on may be taken from whom it is done for.
    """
    there = Project.id.in_(projects) & _project_is_there()
    owners = select(Project.id, Project.user_id).where(there)
    joined = (
        select(ProjectMember.project_id, ProjectMember.user_id)
        .join(Project, Project.id == ProjectMember.project_id)
        .where(there, ProjectMember.user_id.in_(users))
    )
    return union_all(owners, joined)


async def require(
    session: AsyncSession,
    principal: Principal,
    model: type[M],
    row_id: UUID,
    *,
    lock: bool = False,
) -> M:
    """The row; raises NotFoundError for one that is not there or not theirs.

    `lock` keeps others from changing it until this transaction's end.
    """
    statement = (
        visible_to(principal, model)
        .where(
            model.id == row_id  # type: ignore[attr-defined]  # every model here is Identified
        )
        .options(*_SHOWN.get(model, ()))
    )
    if lock:  # on SQLite, who may write at all is alone in it
        # Rows that hang on it may come meanwhile: who stores the end of a reply holds
        # the message, and then wants to be sure of the chat.
        statement = statement.with_for_update(key_share=True)
    row = await session.scalar(statement)
    if row is None:
        raise NotFoundError(f"There is no {_NAMES[model]} with this id.")
    return row


def require_fresh(since: datetime | None) -> None:
    """Raises ForbiddenError where that login is more than 10 minutes ago, or none."""
    if since is None or utcnow() - since > _FRESH:
        raise ForbiddenError(
            "Log in again for this: it needs a login of the last 10 minutes.",
            code="fresh_login_required",
        )


_OWNERS: dict[type[Base], Any] = {
    ApiKey: ApiKey.user_id,
    Chat: Chat.user_id,
    File: File.user_id,
    UserSession: UserSession.user_id,
}
_SHOWN: dict[type[Base], tuple[ExecutableOption, ...]] = {
    Message: (undefer(Message.siblings),),
}
"""What is loaded besides the columns, for it is shown with them."""
_NAMES: dict[type[Base], str] = {
    ApiKey: "API key",
    Chat: "chat",
    File: "file",
    Message: "message",
    Project: "project",
    UserSession: "session",
}
