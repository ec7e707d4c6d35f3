from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, status

from app.api.deps import (
    CurrentUser,
    DatabaseDep,
    PageDep,
    RetrievalDep,
    SessionDep,
)
from app.api.idempotency import IdempotentRoute
from app.schemas.base import Page
from app.schemas.project import (
    DocumentCreate,
    DocumentName,
    DocumentRead,
    DocumentUpdate,
    DocumentWithText,
    FoundRead,
    MemberCreate,
    MemberRead,
    MemberUpdate,
    ProjectCreate,
    ProjectRead,
    ProjectUpdate,
    SearchRead,
)
from app.services.project import documents, members, projects

router = APIRouter(prefix="/projects", tags=["projects"], route_class=IdempotentRoute)


@router.post("", status_code=status.HTTP_201_CREATED)
async def create_project(
    session: SessionDep, user: CurrentUser, form: ProjectCreate
) -> ProjectRead:
    return await projects.create(session, user, form)


@router.get("")
async def list_projects(
    session: SessionDep,
    user: CurrentUser,
    page: PageDep,
    *,
    archived: Annotated[bool, Query()] = False,
) -> Page[ProjectRead]:
    """Those that one is in, the newest first."""
    items, following = await projects.listing(session, user, page, archived=archived)
    return Page(items=items, next_cursor=following)


@router.get("/{project_id}")
async def get_project(
    session: SessionDep, user: CurrentUser, project_id: UUID
) -> ProjectRead:
    return await projects.get(session, user, project_id)


@router.patch("/{project_id}")
async def change_project(
    session: SessionDep, user: CurrentUser, project_id: UUID, form: ProjectUpdate
) -> ProjectRead:
    """For its owner and editors."""
    return await projects.change(session, user, project_id, form)


@router.delete("/{project_id}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_project(
    session: SessionDep, user: CurrentUser, project_id: UUID
) -> None:
    """For its owner. Its documents go with it; its chats stay their owners'."""
    await projects.delete(session, user, project_id)


@router.get("/{project_id}/members")
async def list_members(
    session: SessionDep, user: CurrentUser, project_id: UUID
) -> Page[MemberRead]:
    """The owner first; all on one page."""
    return Page(items=await members.listing(session, user, project_id))


@router.post("/{project_id}/members", status_code=status.HTTP_201_CREATED)
async def add_member(
    session: SessionDep, user: CurrentUser, project_id: UUID, form: MemberCreate
) -> MemberRead:
    """For its owner."""
    return await members.add(session, user, project_id, form)


@router.patch("/{project_id}/members/{user_id}")
async def change_member(
    session: SessionDep,
    user: CurrentUser,
    project_id: UUID,
    user_id: UUID,
    form: MemberUpdate,
) -> MemberRead:
    """For its owner."""
    return await members.change(session, user, project_id, user_id, form)


@router.delete(
    "/{project_id}/members/{user_id}", status_code=status.HTTP_204_NO_CONTENT
)
async def remove_member(
    session: SessionDep, user: CurrentUser, project_id: UUID, user_id: UUID
) -> None:
    """For its owner; everybody else may remove themselves."""
    await members.remove(session, user, project_id, user_id)


@router.post("/{project_id}/documents", status_code=status.HTTP_201_CREATED)
async def add_document(
    session: SessionDep, user: CurrentUser, project_id: UUID, form: DocumentCreate
) -> DocumentRead:
    """For its owner and editors. It is found once it is `ready`."""
    added = await documents.add(session, user, project_id, form)
    return DocumentRead.model_validate(added)


@router.get("/{project_id}/documents")
async def list_documents(
    session: SessionDep, user: CurrentUser, project_id: UUID, page: PageDep
) -> Page[DocumentRead]:
    """The newest first, without their texts."""
    found, following = await documents.listing(session, user, project_id, page)
    return Page(
        items=[DocumentRead.model_validate(document) for document in found],
        next_cursor=following,
    )


@router.get("/{project_id}/documents/{document_id}")
async def get_document(
    session: SessionDep, user: CurrentUser, project_id: UUID, document_id: UUID
) -> DocumentWithText:
    found = await documents.get(session, user, project_id, document_id)
    return DocumentWithText.model_validate(found)


@router.patch("/{project_id}/documents/{document_id}")
async def change_document(
    session: SessionDep,
    user: CurrentUser,
    project_id: UUID,
    document_id: UUID,
    form: DocumentUpdate,
) -> DocumentRead:
    """For its owner and editors; of a file's document, the title alone."""
    changed = await documents.change(session, user, project_id, document_id, form)
    return DocumentRead.model_validate(changed)


@router.delete(
    "/{project_id}/documents/{document_id}", status_code=status.HTTP_204_NO_CONTENT
)
async def remove_document(
    session: SessionDep, user: CurrentUser, project_id: UUID, document_id: UUID
) -> None:
    """For its owner and editors. The file that it came from stays."""
    await documents.remove(session, user, project_id, document_id)


@router.get("/{project_id}/search")
async def search_project(
    database: DatabaseDep,
    retrieval: RetrievalDep,
    user: CurrentUser,
    project_id: UUID,
    *,
    q: Annotated[str, Query(max_length=4000)],
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> SearchRead:
    """The passages of its documents that answer a question best, best first."""
    found = await documents.search(
        database, retrieval, user, project_id, q, limit=limit
    )
    return SearchRead(
        items=[
            FoundRead(
                document=DocumentName(id=one.document_id, title=one.title),
                text=one.text,
                start=one.start,
                end=one.end,
                page=one.page,
                score=one.score,
                lead=one.lead,
            )
            for one in found
        ]
    )
