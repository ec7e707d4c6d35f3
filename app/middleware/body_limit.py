"""No request body beyond the limit, whether it says its length or comes in chunks.

FastAPI's own limit stands outside of all other middleware, and answers a body that says
its length in plain text, without a request id.
"""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import problem
from app.core.exceptions import PayloadTooLargeError


class BodyLimit:
    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit
        """In bytes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # The server has checked that it is a number, and cuts what comes beyond it.
        if int(Headers(scope=scope).get("content-length", 0)) > self._limit:
            error = PayloadTooLargeError("The request is too large.")
            await problem(error.problem())(scope, receive, send)
            return
        received = 0
        started = False

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received <= self._limit:
                return message
            if started:  # too late to say so: nobody waits for this body any more
                return {"type": "http.disconnect"}
            raise HTTPException(413)  # FastAPI lets no other error out of its parsing

        async def send_noting_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        await self._app(scope, receive_within_limit, send_noting_start)
