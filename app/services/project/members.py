"""Who is in a project besides its owner."""

from typing import Literal
from uuid import UUID

from sqlalchemy import ColumnElement, delete, literal, select, union_all
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import ConflictError, NotFoundError
from app.models import Project, ProjectMember, User
from app.schemas.project import MemberCreate, MemberRead, MemberUpdate
from app.services.authorization import Principal, require
from app.services.project.projects import require_role

MOST_MEMBERS = 200
"""Besides the owner."""


async def listing(
    session: AsyncSession, principal: Principal, project_id: UUID
) -> list[MemberRead]:
    """The owner first, then the others by when they came."""
    await require(session, principal, Project, project_id)
    return await _members(session, project_id)


async def add(
    session: AsyncSession, principal: Principal, project_id: UUID, form: MemberCreate
) -> MemberRead:
    """Raises NotFoundError where nobody has this address or name."""
    project = await require_role(session, principal, project_id, "owner", lock=True)
    who = (
        User.email == form.email
        if form.email is not None
        else User.username == form.username
    )
    user_id = await session.scalar(select(User.id).where(who, User.status != "deleted"))
    if user_id is None:
        raise NotFoundError("There is no user with this address or name.")
    if user_id == project.user_id:
        raise _in_already()
    if len(await _members(session, project_id)) > MOST_MEMBERS:
        raise ConflictError(
            f"A project has at most {MOST_MEMBERS} members besides its owner.",
            code="too_many_members",
        )
    session.add(ProjectMember(user_id=user_id, project_id=project_id, role=form.role))
    try:
        await session.flush()
    except IntegrityError as error:
        raise _in_already() from error
    return await _member(session, project_id, user_id)


async def change(
    session: AsyncSession,
    principal: Principal,
    project_id: UUID,
    user_id: UUID,
    form: MemberUpdate,
) -> MemberRead:
    project = await require_role(session, principal, project_id, "owner")
    if user_id == project.user_id:
        raise _the_owner()
    member = await session.scalar(
        select(ProjectMember).where(*_row(project_id, user_id))
    )
    if member is None:
        raise _nobody()
    member.role = form.role
    await session.flush()
    return await _member(session, project_id, user_id)


async def remove(
    session: AsyncSession, principal: Principal, project_id: UUID, user_id: UUID
) -> None:
    """The owner may remove anybody else, and everybody else themselves.

    From here on the project is not there for them: no document, search or context.
    """
    least: Literal["viewer", "owner"]
    least = "viewer" if user_id == principal.user_id else "owner"
    project = await require_role(session, principal, project_id, least)
    if user_id == project.user_id:
        raise _the_owner()
    gone = await session.scalar(
        delete(ProjectMember)
        .where(*_row(project_id, user_id))
        .returning(ProjectMember.id)
    )
    if gone is None:
        raise _nobody()


def _row(project_id: UUID, user_id: UUID) -> tuple[ColumnElement[bool], ...]:
    return ProjectMember.project_id == project_id, ProjectMember.user_id == user_id


async def _members(
    session: AsyncSession, project_id: UUID, *only: ColumnElement[bool]
) -> list[MemberRead]:
    """Those whose account is there; who is deleted is nobody."""
    about = (User.id, User.username, User.full_name)
    owner = (
        select(*about, literal("owner").label("role"), Project.created_at)
        .join(Project, Project.user_id == User.id)
        .where(Project.id == project_id, *only)
    )
    others = (
        select(*about, ProjectMember.role, ProjectMember.created_at)
        .join(ProjectMember, ProjectMember.user_id == User.id)
        .where(ProjectMember.project_id == project_id, User.status != "deleted", *only)
    )
    found = await session.execute(union_all(owner, others))
    members = [
        MemberRead(
            user_id=row.id,
            username=row.username,
            full_name=row.full_name,
            role=row.role,
            created_at=row.created_at,
        )
        for row in found
    ]
    return sorted(members, key=lambda one: (one.role != "owner", one.created_at))


async def _member(session: AsyncSession, project_id: UUID, user_id: UUID) -> MemberRead:
    (member,) = await _members(session, project_id, User.id == user_id)
    return member


def _in_already() -> ConflictError:
    return ConflictError("They are in this project already.", code="member_already")


def _the_owner() -> ConflictError:
    return ConflictError(
        "A project's owner stays its owner: delete the project instead.",
        code="owner_stays",
    )


def _nobody() -> NotFoundError:
    return NotFoundError("There is no member with this id.")
