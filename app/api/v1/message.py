from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, status
from fastapi.responses import Response

from app.api.deps import CurrentUser, SessionDep, TurnsDep
from app.api.idempotency import IdempotentRoute
from app.api.streaming import EVENTS, event_stream, reply_responses, stream_response
from app.schemas.message import (
    Continuation,
    MessageEdit,
    MessageRead,
    Rating,
    Regeneration,
)
from app.services.chat import branches, messages

router = APIRouter(prefix="/messages", tags=["messages"], route_class=IdempotentRoute)


@router.get("/{message_id}")
async def get_message(
    session: SessionDep, user: CurrentUser, message_id: UUID
) -> MessageRead:
    return MessageRead.model_validate(await messages.get(session, user, message_id))


@router.patch(
    "/{message_id}",
    status_code=status.HTTP_201_CREATED,
    response_model=MessageRead,
    responses=reply_responses(),
)
async def edit_message(
    user: CurrentUser, turns: TurnsDep, message_id: UUID, form: MessageEdit
) -> Response:
    """Say it in other words: a new branch beside the message, with a new reply."""
    turn = await turns.edit(user, message_id, form)
    return await event_stream(user, turns, turn, stream=form.stream)


@router.delete("/{message_id}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_message(
    session: SessionDep, user: CurrentUser, turns: TurnsDep, message_id: UUID
) -> None:
    """Delete a message with all that follows it."""
    await branches.delete_below(session, user, turns, message_id)


@router.put("/{message_id}/rating")
async def rate_message(
    session: SessionDep, user: CurrentUser, message_id: UUID, form: Rating
) -> MessageRead:
    return MessageRead.model_validate(
        await messages.rate(session, user, message_id, form)
    )


@router.get(
    "/{message_id}/stream",
    response_class=Response,
    responses={200: EVENTS, 204: {"description": "The client has seen it all."}},
)
async def follow_message(
    user: CurrentUser,
    turns: TurnsDep,
    message_id: UUID,
    last_event_id: Annotated[str | None, Header(max_length=100)] = None,
) -> Response:
    """The reply's events: all of them, or those after `Last-Event-ID`."""
    events = await turns.following.follow(user, message_id, last_event_id)
    if events is None:
        # 204 is how an EventSource is told not to come back.
        return Response(status_code=status.HTTP_204_NO_CONTENT)
    return stream_response(events)


@router.post("/{message_id}/stop")
async def stop_message(
    user: CurrentUser, turns: TurnsDep, message_id: UUID
) -> MessageRead:
    """End a running reply; its text is kept."""
    return MessageRead.model_validate(await turns.stop(user, message_id))


@router.post(
    "/{message_id}/continue",
    status_code=status.HTTP_201_CREATED,
    response_model=MessageRead,
    responses=reply_responses(),
)
async def continue_message(
    user: CurrentUser,
    turns: TurnsDep,
    message_id: UUID,
    form: Continuation | None = None,
) -> Response:
    """Go on with a reply that was interrupted, stopped, cut off or failed."""
    turn = await turns.resume(user, message_id)
    return await event_stream(user, turns, turn, stream=form.stream if form else True)


@router.post(
    "/{message_id}/regenerate",
    status_code=status.HTTP_201_CREATED,
    response_model=MessageRead,
    responses=reply_responses(),
)
async def regenerate_message(
    user: CurrentUser,
    turns: TurnsDep,
    message_id: UUID,
    form: Regeneration | None = None,
) -> Response:
    """Have another reply written beside this one."""
    form = form or Regeneration()
    turn = await turns.regenerate(user, message_id, form)
    return await event_stream(user, turns, turn, stream=form.stream)
