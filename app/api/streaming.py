"""Replies on the wire: as server-sent events, or whole."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from fastapi import status
from fastapi.responses import Response, StreamingResponse

from app.api.errors import problem
from app.models import Message
from app.schemas.message import MessageRead
from app.services.authorization import Principal
from app.services.chat import messages
from app.services.chat.turn import Turn
from app.services.chat.turns import Turns
from app.services.runtime import Runtime

EVENTS: dict[str, Any] = {
    "description": "Events `message_start`, `delta`, `thinking`, `citation`, `usage`, "
    "and at the end `message_stop` or `error`.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}


def reply_responses() -> dict[int | str, dict[str, Any]]:
    """What the calls that start a turn answer."""
    return {200: EVENTS, 201: {"description": "The whole reply, with `stream: false`."}}


async def event_stream(
    user: Principal, turns: Turns, turn: Turn, *, stream: bool
) -> Response:
    if stream:
        return stream_response(turns.following.new_events(user, turn))
    return _whole(await turn.result())


async def replay(
    user: Principal, runtime: Runtime, message_id: UUID, *, stream: bool
) -> Response:
    """The answer to a call that has started this reply before."""
    events = await runtime.turns.following.follow(user, message_id, None)
    assert events is not None  # who holds nothing yet has not seen all
    if stream:
        return stream_response(events)
    async for _ in events:
        pass  # it may be written by another process: its stream tells when it ends
    async with runtime.database.unit_of_work(read_only=True) as session:
        message = await messages.get(session, user, message_id)
    if message.status == "error" and message.error is not None:
        return problem(message.error)
    return _whole(message)


def _whole(message: Message) -> Response:
    read = MessageRead.model_validate(message)
    return Response(
        read.model_dump_json(),
        status_code=status.HTTP_201_CREATED,
        media_type="application/json",
    )


def stream_response(events: AsyncIterator[bytes]) -> Response:
    # Not FastAPI's EventSourceResponse: it builds, checks and encodes an object for
    # every event, where our frames are made once for all readers.
    return StreamingResponse(
        events,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
