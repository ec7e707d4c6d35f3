"""uvicorn's connection, with bounds for what comes before a request is one.

uvicorn and its parser take any number of headers of any length, wait for the rest of
them for ever, and keep any number of pipelined requests.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import orjson
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)

from app.cli.sending import Sending
from app.core.visitor import Visitor

_LONGEST_URL = 16 * 2**10
_LONGEST_HEAD = 64 * 2**10
_MOST_HEADERS = 100
_MOST_PIPELINED = 32

_REFUSALS = {
    400: ("bad_request", "This is no HTTP request."),
    408: ("request_timeout", "The request came in too slowly."),
    414: ("uri_too_long", f"The address is longer than {_LONGEST_URL} bytes."),
    431: (
        "request_header_fields_too_large",
        f"More than {_MOST_HEADERS} headers, or {_LONGEST_HEAD} bytes of them.",
    ),
}


class _RefusedError(Exception):
    """Ends the parsing."""


class Connection(HttpToolsProtocol):
    _refusal = 400
    _in_head = False
    _in_message = False
    _head = 0
    """Bytes that came before, and the head is not whole yet."""
    _chunk = 0
    """Bytes that are being parsed."""
    _timer: asyncio.TimerHandle | None = None
    _idle_timer: asyncio.TimerHandle | None = None
    _idle_since: float | None = None
    _answered: RequestResponseCycle | None = None
    """The request being answered; `cycle` is the newest, which may wait behind it."""
    _visitor: Visitor
    """Who waits for that."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._seconds = _body_seconds(self)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._hang_up()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._chunk, goes_on = len(data), self._in_head
        super().data_received(data)
        if self._in_head:  # the parser keeps a header to itself until it is whole
            self._head += len(data)
            too_long = goes_on and self._head > 2 * _LONGEST_HEAD
            if too_long and not self.transport.is_closing():
                self._refusal = 431
                self.send_400_response("")
        waiting = self._in_message or not self._is_answering()
        if self._timer is None and waiting:
            self._arm()

    # What the parser finds

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._in_message = True
        self._head = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > _LONGEST_URL:
            self._refuse(414)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= _MOST_PIPELINED:
            self._refuse(400)
        headers = self.headers
        if len(headers) > _MOST_HEADERS or self._head + self._chunk > _LONGEST_HEAD:
            size = sum(len(name) + len(value) for name, value in headers)
            if len(headers) > _MOST_HEADERS or size > _LONGEST_HEAD:
                self._refuse(431)
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_message = False
        self._disarm()
        super().on_message_complete()

    # What is answered

    def _start_asgi_task(
        self, cycle: RequestResponseCycle, app: ASGI3Application
    ) -> None:
        self._answered = cycle
        self._visitor = visitor = Visitor()
        # Answers to HEAD have a length and no body.
        ours = None if cycle.scope["method"] == "HEAD" else Sending(cycle).send

        def answered(scope: Any, receive: Any, send: Any) -> Any:
            visitor.arrived = not cycle.more_body
            scope["visitor"] = visitor
            return app(scope, receive, ours or send)

        super()._start_asgi_task(cycle, answered)

    def _is_answering(self) -> bool:
        return self._answered is not None and not self._answered.response_complete

    def _hang_up(self) -> None:
        """Let the application know; uvicorn itself tells only the newest request."""
        self.pipeline.clear()
        if self._answered is not None and self._is_answering():
            self._answered.disconnected = True
            self._answered.message_event.set()
            self._visitor.leave()

    # Between requests: one timer for many of them, where uvicorn has one for each

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._watch(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        """Called by uvicorn as something comes."""
        self._idle_since = None

    def _watch(self, seconds: float) -> None:
        self._idle_timer = self.loop.call_later(seconds, self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        self._idle_timer = None
        if self._idle_since is None or self.transport.is_closing():
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._watch(left)
        else:
            self.transport.close()

    # Refusing

    def _refuse(self, status: int) -> None:
        self._refusal = status
        raise _RefusedError

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn gives it
        """Called by uvicorn for what its parser refuses."""
        self._disarm()
        if self._is_answering():  # no other answer can stand in the middle of that one
            self._hang_up()
            self.transport.close()
            return
        status = HTTPStatus(self._refusal)
        code, detail = _REFUSALS[status]
        body = orjson.dumps(
            {
                "type": "about:blank",
                "title": status.phrase.capitalize(),
                "status": status,
                "detail": detail,
                "code": code,
                "request_id": None,
            }
        )
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            "content-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\n"
            "x-content-type-options: nosniff\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    # Time

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self._seconds, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._is_answering():
            if self._in_message:
                self._arm()  # the application reads the body, and watches its time
        elif self._in_head:
            self._refusal = 408
            self.send_400_response("")
        else:
            self.transport.close()  # nothing has come, or nobody waits for the rest


def _body_seconds(connection: Connection) -> float:
    runtime = connection.config.loaded_app.state.runtime
    return float(runtime.settings.limits.body_seconds)
