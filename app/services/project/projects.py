"""Rows of projects, and what a member may do with one."""

from collections.abc import Sequence
from typing import Literal, NamedTuple
from uuid import UUID

from sqlalchemy import delete as sql_delete
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import Database
from app.core.exceptions import ForbiddenError
from app.models import Project, ProjectDocument, ProjectMember
from app.schemas.project import ProjectCreate, ProjectRead, ProjectUpdate
from app.services import job as jobs
from app.services.authorization import Principal, require, visible_to
from app.services.knowledge.indexing import Indexing
from app.services.paging import Paging, page

Role = Literal["owner", "editor", "viewer"]

_RANKS: dict[str, int] = {"viewer": 0, "editor": 1, "owner": 2}
_MAY_BE_NULL = {"instructions", "token_limit"}


async def create(
    session: AsyncSession, principal: Principal, form: ProjectCreate
) -> ProjectRead:
    project = Project(user_id=principal.user_id, **form.model_dump())
    session.add(project)
    await session.flush()
    return await shown(session, principal, project)


async def listing(
    session: AsyncSession, principal: Principal, at: Paging, *, archived: bool
) -> tuple[Sequence[ProjectRead], str | None]:
    """A page of those that one is in, the newest first, and the next one's cursor."""
    mine = visible_to(principal, Project).where(Project.archived == archived)
    projects, following = await page(session, mine, Project, at)
    return await _all_shown(session, principal, projects), following


async def get(
    session: AsyncSession, principal: Principal, project_id: UUID
) -> ProjectRead:
    project = await require(session, principal, Project, project_id)
    return await shown(session, principal, project)


async def change(
    session: AsyncSession, principal: Principal, project_id: UUID, form: ProjectUpdate
) -> ProjectRead:
    project = await require_role(session, principal, project_id, "editor")
    for field, value in form.model_dump(exclude_unset=True).items():
        if value is not None or field in _MAY_BE_NULL:
            setattr(project, field, value)
    await session.flush()
    return await shown(session, principal, project)


async def delete(session: AsyncSession, principal: Principal, project_id: UUID) -> None:
    """It is gone for everybody at once; its chats stay their owners'."""
    project = await require_role(session, principal, project_id, "owner")
    project.deleted = True
    jobs.enqueue(session, "project.remove", project_id=str(project_id))
    await session.flush()


async def purge(database: Database, indexing: Indexing, project_id: UUID) -> None:
    """Delete what was deleted, in small steps."""
    await indexing.remove_all(project_id)
    async with database.unit_of_work() as session:
        await session.execute(
            sql_delete(Project).where(Project.id == project_id, Project.deleted)
        )


async def require_role(
    session: AsyncSession,
    principal: Principal,
    project_id: UUID,
    least: Role,
    *,
    lock: bool = False,
) -> Project:
    """The project; raises NotFoundError, and ForbiddenError for a lesser role."""
    project = await require(session, principal, Project, project_id, lock=lock)
    roles = await _roles(session, principal, [project])
    if _RANKS[roles[project.id]] < _RANKS[least]:
        raise ForbiddenError(
            f"Only {'its owner' if least == 'owner' else 'editors of the project'} "
            "may do this.",
            code="role_required",
        )
    return project


async def shown(
    session: AsyncSession, principal: Principal, project: Project
) -> ProjectRead:
    (read,) = await _all_shown(session, principal, [project])
    return read


class _Size(NamedTuple):
    documents: int
    tokens: int


async def _all_shown(
    session: AsyncSession, principal: Principal, projects: Sequence[Project]
) -> list[ProjectRead]:
    roles = await _roles(session, principal, projects)
    sizes = await _sizes(session, projects)
    return [
        ProjectRead(
            id=project.id,
            name=project.name,
            instructions=project.instructions,
            token_limit=project.token_limit,
            context_mode=project.context_mode,
            archived=project.archived,
            role=roles[project.id],
            documents=sizes.get(project.id, _Size(0, 0)).documents,
            tokens=sizes.get(project.id, _Size(0, 0)).tokens,
            created_at=project.created_at,
            updated_at=project.updated_at,
        )
        for project in projects
    ]


async def _roles(
    session: AsyncSession, principal: Principal, projects: Sequence[Project]
) -> dict[UUID, Role]:
    """Of projects that one is in."""
    roles: dict[UUID, Role] = {
        project.id: "owner"
        for project in projects
        if project.user_id == principal.user_id
    }
    if others := [p.id for p in projects if p.id not in roles]:
        found = await session.execute(
            select(ProjectMember.project_id, ProjectMember.role).where(
                ProjectMember.user_id == principal.user_id,
                ProjectMember.project_id.in_(others),
            )
        )
        roles |= {row.project_id: row.role for row in found}
    return roles


async def _sizes(
    session: AsyncSession, projects: Sequence[Project]
) -> dict[UUID, _Size]:
    found = await session.execute(
        select(
            ProjectDocument.project_id,
            func.count(),
            func.coalesce(func.sum(ProjectDocument.tokens), 0),
        )
        .where(
            ProjectDocument.project_id.in_([project.id for project in projects]),
            ProjectDocument.state != "deleted",
        )
        .group_by(ProjectDocument.project_id)
    )
    return {row[0]: _Size(row[1], int(row[2])) for row in found}
