"""An answer on its way to the socket.

uvicorn looks at every header of every answer by two regular expressions, a tenth of
what a small answer costs in all. Here a header that was sent before is known.
"""

import asyncio
from collections.abc import Iterable
from functools import lru_cache

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)

_WITHOUT_BODY = (204, 304)


class Sending:
    """Of the answer to one request, of any method but HEAD."""

    __slots__ = ("_cycle", "_held")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._held = b""
        """The head, which goes out with the first of the body, if that is at hand."""

    async def send(self, message: ASGISendEvent) -> None:
        """ASGI's. Raises RuntimeError for what is no answer."""
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        if message["type"] == "http.response.body":
            if not cycle.response_started or cycle.response_complete:
                raise RuntimeError("A body belongs between an answer's head and end.")
            self._send_body(
                message.get("body", b""), ends=not message.get("more_body", False)
            )
        elif message["type"] == "http.response.start":
            if cycle.response_started:
                raise RuntimeError("An answer has one head.")
            cycle.response_started = True
            cycle.waiting_for_100_continue = False
            self._held = self._head(message["status"], message.get("headers", ()))
            if cycle.chunked_encoding:  # its first part may be long in coming
                asyncio.get_running_loop().call_soon(self._send_head)
        else:
            raise RuntimeError(f"Nothing to send: {message['type']}")

    def _head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        cycle = self._cycle
        lines = [STATUS_LINE[status]]
        closes = False
        for given, value in (*cycle.default_headers, *headers):
            name = given.lower()
            lines.append(_line(name, value))
            if name == b"content-length" and cycle.chunked_encoding is None:
                cycle.expected_content_length = int(value)
                cycle.chunked_encoding = False
            elif name == b"connection" and b"close" in value.lower():
                cycle.keep_alive = False
                closes = True
        if not (cycle.keep_alive or closes):
            lines.append(b"connection: close\r\n")
        if cycle.chunked_encoding is None and status not in _WITHOUT_BODY:
            cycle.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _send_head(self) -> None:
        if self._held and not self._cycle.disconnected:
            self._cycle.transport.write(self._held)
            self._held = b""

    def _send_body(self, body: bytes, *, ends: bool) -> None:
        cycle = self._cycle
        head, self._held = self._held, b""
        if cycle.chunked_encoding:
            part = b"%b%x\r\n%b\r\n" % (head, len(body), body) if body else head
            if ends:
                part += b"0\r\n\r\n"
        else:
            cycle.expected_content_length -= len(body)
            if cycle.expected_content_length < 0:
                raise RuntimeError("The body is longer than its content-length.")
            if ends and cycle.expected_content_length:
                raise RuntimeError("The body is shorter than its content-length.")
            part = head + body
        cycle.transport.write(part)
        if ends:
            cycle.response_complete = True
            cycle.message_event.set()
            if not cycle.keep_alive:
                cycle.transport.close()
            cycle.on_response()


@lru_cache(4096)
def _line(name: bytes, value: bytes) -> bytes:
    """Of a head. Raises RuntimeError for what would be more than one."""
    if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
        raise RuntimeError("A header has a character that none may have.")
    return b"%b: %b\r\n" % (name, value)
