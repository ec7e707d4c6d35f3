from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, status
from fastapi.responses import Response

from app.api.deps import (
    BranchDep,
    CurrentUser,
    PageDep,
    ProvidersDep,
    SessionDep,
    TurnsDep,
)
from app.api.streaming import event_stream, reply_responses
from app.schemas.base import Page
from app.schemas.chat import ChatCreate, ChatRead, ChatUpdate
from app.schemas.message import MessageCreate, MessageRead
from app.services.chat import chats, messages

router = APIRouter(prefix="/chats", tags=["chats"])


@router.post("", status_code=status.HTTP_201_CREATED)
async def create_chat(
    session: SessionDep, user: CurrentUser, providers: ProvidersDep, form: ChatCreate
) -> ChatRead:
    return ChatRead.model_validate(await chats.create(session, user, providers, form))


@router.get("")
async def list_chats(
    session: SessionDep,
    user: CurrentUser,
    page: PageDep,
    *,
    archived: Annotated[bool, Query()] = False,
) -> Page[ChatRead]:
    items, following = await chats.listing(
        session,
        user,
        archived=archived,
        limit=page.limit,
        cursor=page.cursor,
        offset=page.offset,
    )
    return Page(items=items, next_cursor=following)


@router.get("/{chat_id}")
async def get_chat(session: SessionDep, user: CurrentUser, chat_id: UUID) -> ChatRead:
    return ChatRead.model_validate(await chats.get(session, user, chat_id))


@router.patch("/{chat_id}")
async def change_chat(
    session: SessionDep,
    user: CurrentUser,
    providers: ProvidersDep,
    chat_id: UUID,
    form: ChatUpdate,
) -> ChatRead:
    changed = await chats.change(session, user, providers, chat_id, form)
    return ChatRead.model_validate(changed)


@router.delete("/{chat_id}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_chat(
    session: SessionDep, user: CurrentUser, turns: TurnsDep, chat_id: UUID
) -> None:
    await chats.delete(session, user, turns, chat_id)


@router.get("/{chat_id}/messages")
async def list_messages(
    session: SessionDep,
    user: CurrentUser,
    chat_id: UUID,
    page: BranchDep,
) -> Page[MessageRead]:
    """The newest page first, along one branch."""
    items, following = await messages.page(
        session, user, chat_id, limit=page.limit, cursor=page.cursor, leaf=page.leaf
    )
    return Page(items=items, next_cursor=following)


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
