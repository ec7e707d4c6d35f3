from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, status
from fastapi.responses import Response, StreamingResponse

from app.api.deps import (
    BranchDep,
    CurrentUser,
    DatabaseDep,
    PageDep,
    RouterDep,
    RuntimeDep,
    SearchIndexDep,
    SessionDep,
    TurnsDep,
)
from app.api.idempotency import IdempotentRoute
from app.api.rows import page_response
from app.api.streaming import event_stream, reply_responses
from app.schemas.base import Page
from app.schemas.chat import ChatCreate, ChatFork, ChatRead, ChatUpdate, ShareRead
from app.schemas.message import MessageCreate, MessageRead
from app.services.chat import branches, chats, export, messages
from app.services.chat import share as shares

router = APIRouter(prefix="/chats", tags=["chats"], route_class=IdempotentRoute)

_FILES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file, as an attachment.",
        "content": {"application/json": {}, "text/markdown": {}},
    }
}


@router.post("", status_code=status.HTTP_201_CREATED)
async def create_chat(
    session: SessionDep, user: CurrentUser, llm: RouterDep, form: ChatCreate
) -> ChatRead:
    return ChatRead.model_validate(await chats.create(session, user, llm, form))


@router.get("", response_model=Page[ChatRead])
async def list_chats(
    database: DatabaseDep,
    index: SearchIndexDep,
    user: CurrentUser,
    page: PageDep,
    *,
    q: Annotated[
        str | None,
        Query(max_length=500, description="Words of the title or of messages."),
    ] = None,
    project_id: Annotated[UUID | None, Query()] = None,
    archived: Annotated[bool, Query()] = False,
) -> Response:
    """The pinned first, then the last changed; with `q` those that hold the words."""
    items, following = await chats.listing(
        database,
        index,
        user,
        query=q or None,
        project_id=project_id,
        archived=archived,
        limit=page.limit,
        cursor=page.cursor,
        offset=page.offset,
    )
    return page_response(items, following)


@router.get("/{chat_id}")
async def get_chat(session: SessionDep, user: CurrentUser, chat_id: UUID) -> ChatRead:
    return ChatRead.model_validate(await chats.get(session, user, chat_id))


@router.patch("/{chat_id}")
async def change_chat(
    session: SessionDep,
    user: CurrentUser,
    llm: RouterDep,
    chat_id: UUID,
    form: ChatUpdate,
) -> ChatRead:
    changed = await chats.change(session, user, llm, chat_id, form)
    return ChatRead.model_validate(changed)


@router.delete("/{chat_id}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_chat(
    session: SessionDep, user: CurrentUser, turns: TurnsDep, chat_id: UUID
) -> None:
    await chats.delete(session, user, turns, chat_id)


@router.post("/{chat_id}/fork", status_code=status.HTTP_201_CREATED)
async def fork_chat(
    session: SessionDep,
    user: CurrentUser,
    chat_id: UUID,
    form: ChatFork | None = None,
) -> ChatRead:
    """Copy one branch, up to a message, into a new chat."""
    copy = await branches.fork(session, user, chat_id, form or ChatFork())
    return ChatRead.model_validate(copy)


@router.get("/{chat_id}/export", response_class=Response, responses=_FILES)
async def export_chat(
    session: SessionDep,
    user: CurrentUser,
    runtime: RuntimeDep,
    chat_id: UUID,
    kind: Annotated[export.Format, Query(alias="format")] = "json",
) -> Response:
    """All messages as JSON, or the branch that is shown as Markdown."""
    chat = await chats.get(session, user, chat_id)
    return StreamingResponse(
        export.content(runtime.database, chat, kind),
        media_type=export.MEDIA_TYPES[kind],
        headers={
            "Content-Disposition": export.disposition(chat, kind),
            "Cache-Control": "no-store",
        },
    )


@router.post("/{chat_id}/share", status_code=status.HTTP_201_CREATED)
async def share_chat(
    session: SessionDep,
    user: CurrentUser,
    runtime: RuntimeDep,
    chat_id: UUID,
    response: Response,
) -> ShareRead:
    """Make a public link to the branch as it stands; it ends the one before."""
    response.headers["Cache-Control"] = "no-store"
    base_url = runtime.settings.server.url
    return await shares.create(session, user, chat_id, base_url=base_url)


@router.delete("/{chat_id}/share", status_code=status.HTTP_204_NO_CONTENT)
async def unshare_chat(session: SessionDep, user: CurrentUser, chat_id: UUID) -> None:
    await shares.revoke(session, user, chat_id)


@router.get("/{chat_id}/messages", response_model=Page[MessageRead])
async def list_messages(
    database: DatabaseDep, user: CurrentUser, chat_id: UUID, page: BranchDep
) -> Response:
    """The newest page first, along one branch."""
    items, following = await messages.page(
        database, user, chat_id, limit=page.limit, cursor=page.cursor, leaf=page.leaf
    )
    return page_response(items, following)


@router.post(
    "/{chat_id}/messages",
    status_code=status.HTTP_201_CREATED,
    response_model=MessageRead,
    responses=reply_responses(),
)
async def send_message(
    user: CurrentUser, turns: TurnsDep, chat_id: UUID, form: MessageCreate
) -> Response:
    """Send a message; the reply streams back, or comes whole with `stream: false`."""
    turn = await turns.send(user, chat_id, form)
    return await event_stream(user, turns, turn, stream=form.stream)
