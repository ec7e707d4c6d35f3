"""uvicorn's connection, with bounds for what comes before a request is one.

uvicorn and its parser take any number of headers of any length, wait for the rest of
them for ever, and keep any number of pipelined requests.
"""

import asyncio
from http import HTTPStatus

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

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
    """Bytes of the head, as far as it has come."""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._seconds = _body_seconds(self)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:  # the parser keeps a header to itself until it is whole
            self._head += len(data)
            if self._head > 2 * _LONGEST_HEAD and not self.transport.is_closing():
                self._refusal = 431
                self.send_400_response("")
        idle = self.cycle is None or self.cycle.response_complete
        if self._timer is None and (self._in_message or idle):
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

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head += len(name) + len(value)
        if self._head > _LONGEST_HEAD or len(self.headers) > _MOST_HEADERS:
            self._refuse(431)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= _MOST_PIPELINED:
            self._refuse(400)
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_message = False
        self._disarm()
        super().on_message_complete()

    # Refusing

    def _refuse(self, status: int) -> None:
        self._refusal = status
        raise _RefusedError

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn gives it
        """Called by uvicorn for what its parser refuses."""
        self._disarm()
        if self.cycle is not None and not self.cycle.response_complete:
            # Pipelined behind a request in progress, in whose answer no other can stand.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
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
        if self._in_head and (self.cycle is None or self.cycle.response_complete):
            self._refusal = 408
            self.send_400_response("")
        elif self.cycle is None or self.cycle.response_complete:
            self.transport.close()  # nothing has come, or nobody waits for the rest
        elif self._in_message:
            self._arm()  # the application reads the body, and watches its time


def _body_seconds(connection: Connection) -> float:
    runtime = connection.config.loaded_app.state.runtime
    return float(runtime.settings.limits.body_seconds)
