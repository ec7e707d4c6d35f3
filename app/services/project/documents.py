"""A project's documents: files and pasted texts, and finding what they say."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from app.core.database import Database
from app.core.exceptions import ConflictError, NotFoundError
from app.models import Project, ProjectDocument
from app.schemas.project import DocumentCreate, DocumentUpdate
from app.services import plan
from app.services.authorization import Principal, require, visible_to
from app.services.file.reading import FileText, text_of
from app.services.knowledge import indexing
from app.services.knowledge.retrieval import Retrieval
from app.services.knowledge.search import Found
from app.services.paging import Paging, page
from app.services.project.projects import require_role

_TITLE = 255  # characters: what a file's name may have


async def add(
    session: AsyncSession, principal: Principal, project_id: UUID, form: DocumentCreate
) -> ProjectDocument:
    """Raises ConflictError where it is in already, or the project would be too large.

    And what `text_of` does of a file.
    """
    title, text = form.title or "", form.text or ""
    project = await require_role(session, principal, project_id, "editor", lock=True)
    if form.file_id is None:
        source = FileText(title, text, [])
    else:
        await _refuse_twice(session, project_id, form.file_id)
        source = await text_of(session, principal, form.file_id)
    document = ProjectDocument(
        project_id=project_id,
        file_id=form.file_id,
        title=(title or source.name)[:_TITLE],
        pages=source.pages,
    )
    session.add(document)
    await indexing.take_in(session, document, source.text)
    await _refuse_too_large(session, project)
    return document


async def listing(
    session: AsyncSession, principal: Principal, project_id: UUID, at: Paging
) -> tuple[Sequence[ProjectDocument], str | None]:
    """A page, the newest first, and the cursor of the next one."""
    await require(session, principal, Project, project_id)
    mine = visible_to(principal, ProjectDocument).where(
        ProjectDocument.project_id == project_id
    )
    return await page(session, mine, ProjectDocument, at)


async def get(
    session: AsyncSession, principal: Principal, project_id: UUID, document_id: UUID
) -> ProjectDocument:
    """With its text."""
    statement = _one(principal, project_id, document_id)
    return await _there(session, statement.options(undefer(ProjectDocument.text)))


async def change(
    session: AsyncSession,
    principal: Principal,
    project_id: UUID,
    document_id: UUID,
    form: DocumentUpdate,
) -> ProjectDocument:
    """Raises ConflictError for a new text of a file's document."""
    project = await require_role(session, principal, project_id, "editor", lock=True)
    # Locked: a job may be about to take it up.
    statement = _one(principal, project_id, document_id).with_for_update(key_share=True)
    document = await _there(session, statement.options(undefer(ProjectDocument.text)))
    if form.text is not None and document.file_id is not None:
        raise ConflictError(
            "This document's text is its file's: upload another file.",
            code="text_of_a_file",
        )
    document.title = form.title or document.title
    await indexing.take_in(session, document, form.text or document.text)
    await _refuse_too_large(session, project)
    return document


async def remove(
    session: AsyncSession, principal: Principal, project_id: UUID, document_id: UUID
) -> None:
    await require_role(session, principal, project_id, "editor")
    statement = _one(principal, project_id, document_id).with_for_update()
    document = await _there(session, statement)
    await indexing.remove(session, document)


async def search(
    database: Database,
    retrieval: Retrieval,
    principal: Principal,
    project_id: UUID,
    query: str,
    *,
    limit: int,
) -> Sequence[Found]:
    async with database.unit_of_work(read_only=True) as session:
        await require(session, principal, Project, project_id)
    return await retrieval.find(
        principal.user_id, project_id, query, limit=limit, key=principal.key
    )


def _one(
    principal: Principal, project_id: UUID, document_id: UUID
) -> Select[ProjectDocument]:
    return visible_to(principal, ProjectDocument).where(
        ProjectDocument.id == document_id, ProjectDocument.project_id == project_id
    )


async def _there(
    session: AsyncSession, statement: Select[ProjectDocument]
) -> ProjectDocument:
    found = await session.scalar(statement)
    if found is None:
        raise NotFoundError("There is no document with this id.")
    return found


async def _refuse_twice(session: AsyncSession, project_id: UUID, file_id: UUID) -> None:
    there = await session.scalar(
        select(ProjectDocument.id).where(
            ProjectDocument.project_id == project_id,
            ProjectDocument.file_id == file_id,
            ProjectDocument.state != "deleted",
        )
    )
    if there is not None:
        raise ConflictError(
            "This file is in the project already.",
            code="document_already",
            extra={"document_id": str(there)},
        )


async def _refuse_too_large(session: AsyncSession, project: Project) -> None:
    """By the owner's plan, whoever adds to it."""
    assert project.user_id is not None, "only members write, and it has one"
    limits = await plan.limits_of(session, project.user_id)
    if limits.project_tokens is None:
        return
    tokens = await session.scalar(
        select(func.sum(ProjectDocument.tokens)).where(
            ProjectDocument.project_id == project.id, ProjectDocument.state != "deleted"
        )
    )
    if int(tokens or 0) > limits.project_tokens:
        raise ConflictError(
            f"The documents of a project may have {limits.project_tokens} tokens by "
            f"its owner's plan, {limits.plan}, and these have {tokens}.",
            code="project_full",
        )
