"""Replies on the wire: as server-sent events, or whole."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import status
from fastapi.responses import Response, StreamingResponse

from app.schemas.message import MessageRead
from app.services.authorization import Principal
from app.services.chat.turn import Turn
from app.services.chat.turns import Turns

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
    message = await turn.result()
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
