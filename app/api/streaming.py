"""Replies on the wire: as server-sent events, or whole."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

from fastapi import status
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.api.errors import problem
from app.models import Message
from app.schemas.message import message_json
from app.services.authorization import Principal
from app.services.chat import messages
from app.services.chat.turn import Turn
from app.services.chat.turns import Turns
from app.services.runtime import Runtime

EVENT_STREAM = "text/event-stream"
UNBUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

_BODY = {"type": "http.response.body"}

EVENTS: dict[str, Any] = {
    "description": "Events `message_start`, `delta`, `thinking`, `citation`, `usage`, "
    "and at the end `message_stop` or `error`.",
    "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
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
    return Response(
        message_json(message),
        status_code=status.HTTP_201_CREATED,
        media_type="application/json",
    )


def stream_response(events: AsyncGenerator[bytes]) -> Response:
    # Not FastAPI's EventSourceResponse: it builds, checks and encodes an object for
    # every event, where our frames are made once for all readers.
    return EventStream(
        events,
        media_type=EVENT_STREAM,
        headers=UNBUFFERED,
    )


class EventStream(StreamingResponse):
    """Ends with the events or with the client, whichever leaves first."""

    def __init__(self, events: AsyncGenerator[bytes], **options: Any) -> None:
        super().__init__(events, **options)
        self._events = events

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(self.listen_for_disconnect(receive))
        tasks = (sending, leaving)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._events.aclose()
        if not sending.cancelled():
            sending.result()  # raises what went wrong

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        async for frames in self._events:
            await send({**_BODY, "body": frames, "more_body": True})
        await send({**_BODY, "body": b"", "more_body": False})
