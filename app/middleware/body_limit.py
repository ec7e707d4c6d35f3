"""No request body beyond the limit, whether it says its length or comes in chunks.

Nor one that takes for ever to arrive, nor a compressed one: a few bytes of those may
stand for gigabytes, and nobody needs them.

FastAPI's own limit stands outside of all other middleware, and answers a body that says
its length in plain text, without a request id.
"""

import asyncio
import types
from collections.abc import Generator, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import Message

from app.api.errors import problem
from app.core.exceptions import (
    AppError,
    PayloadTooLargeError,
    UnsupportedMediaTypeError,
)
from app.middleware.front import Verdict, Visit

_UPLOADS = "/api/v1/files"

_SLOWEST = 16 * 2**10
"""Bytes for which a second is added to the time that a body may take."""


class BodyLimit:
    def __init__(
        self, *, limit: int, gateway_limit: int, file_limit: int, seconds: float
    ) -> None:
        """The limits in bytes; the gateway's is for paths under /v1.

        `file_limit` is an upload's, which nobody takes into memory.
        """
        self._limit = limit
        self._gateway_limit = gateway_limit
        self._file_limit = file_limit
        self._seconds = seconds

    def enter(self, visit: Visit) -> Verdict:
        limit = self._limit_for(visit.scope["method"], visit.scope["path"])
        error = _refusal(visit.headers, limit)
        if error is not None:
            return problem(error.problem())
        # What comes in chunks has not said its length.
        if not visit.arrived or b"transfer-encoding" in visit.headers:
            visit.receive = _Body(visit, limit=limit, seconds=self._seconds).receive
        return None

    def _limit_for(self, method: str, path: str) -> int:
        if path.startswith("/v1/"):
            return self._gateway_limit
        if path == _UPLOADS and method == "POST":
            return self._file_limit
        return self._limit


def _refusal(headers: Mapping[bytes, bytes], limit: int) -> AppError | None:
    # The server has checked that it is a number, and cuts what comes beyond it.
    if int(headers.get(b"content-length", 0)) > limit:
        return PayloadTooLargeError("The request is too large.")
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() != b"identity":
        return UnsupportedMediaTypeError(
            "Bodies are taken as they are: send this one without Content-Encoding."
        )
    return None


@types.coroutine
def _rest(
    step: Any, waiting: Generator[Any, Any, Message]
) -> Generator[Any, Any, Message]:
    """What is left to wait for, after the first step of it: a timer costs more."""
    try:
        yield step
    except (asyncio.CancelledError, GeneratorExit):
        waiting.close()
        raise
    return (yield from waiting)


class _Body:
    def __init__(self, visit: Visit, *, limit: int, seconds: float) -> None:
        self._visit = visit
        self._receive = visit.receive
        self._limit = limit
        self._clock = asyncio.get_running_loop().time
        self._end = self._clock() + seconds
        self._size = 0
        self._whole = False

    async def receive(self) -> Message:
        if self._whole:  # what comes now is the end of the connection, in its own time
            return await self._receive()
        waiting = self._receive().__await__()
        try:
            step = next(waiting)
        except StopIteration as arrived:  # it was here already, as most bodies are
            message: Message = arrived.value
        else:
            try:
                async with asyncio.timeout(
                    self._end + self._size / _SLOWEST - self._clock()
                ):
                    message = await _rest(step, waiting)
            except TimeoutError:
                return self._fail(408)
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            return self._fail(413)
        self._whole = not message.get("more_body")
        return message

    def _fail(self, status: int) -> Message:
        if (
            self._visit.started
        ):  # too late to say so: nobody waits for this body any more
            return {"type": "http.disconnect"}
        raise HTTPException(status)  # FastAPI lets no other error out of its parsing
