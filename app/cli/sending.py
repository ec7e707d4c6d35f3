"""An answer on its way to the socket.

uvicorn looks at every header of every answer by two regular expressions, a tenth of
what a small answer costs in all. Here a header that was sent before is known.
"""

import asyncio
from collections.abc import Iterable

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)

_WITHOUT_BODY = (204, 304)

_MOST_KNOWN = 1000  # headers
_CHANGING = frozenset(
    {b"content-length", b"location", b"request-id", b"server-timing", b"set-cookie",
     b"x-request-id"}
)  # fmt: skip
"""What is hardly sent twice, or is nobody else's business, and so is not kept."""


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
        line_of = _lines.__getitem__
        lines = map(line_of, cycle.default_headers), map(line_of, headers)
        head = b"".join((STATUS_LINE[status], *lines[0], *lines[1]))
        if (length := _value(head, b"content-length")) is not None:
            cycle.expected_content_length = int(length)
            cycle.chunked_encoding = False
        elif status not in _WITHOUT_BODY:
            cycle.chunked_encoding = True
            head += b"transfer-encoding: chunked\r\n"
        if b"close" in (_value(head, b"connection") or b"").lower():
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            head += b"connection: close\r\n"
        return head + b"\r\n"

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


def _value(head: bytes, name: bytes) -> bytes | None:
    """A header's, of a head whose names are in lower case."""
    _, found, rest = head.partition(b"\r\n%b: " % name)
    return rest.partition(b"\r\n")[0] if found else None


class _Lines(dict[tuple[bytes, bytes], bytes]):
    """The lines of headers that were sent before; others are made as they are asked.

    Raises RuntimeError for a header that would be more than one line.
    """

    def __missing__(self, header: tuple[bytes, bytes]) -> bytes:
        name, value = header
        changes = name in _CHANGING
        if HEADER_VALUE_RE.search(value) or (not changes and HEADER_RE.search(name)):
            raise RuntimeError("A header has a character that none may have.")
        line = b"%b: %b\r\n" % (name.lower(), value)
        if not changes:
            if len(self) >= _MOST_KNOWN:
                self.clear()
            self[header] = line
        return line


_lines = _Lines()
