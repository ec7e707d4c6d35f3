"""One socket, and the answer that comes from it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import cast

import httptools

from app.core.wakeup import Wakeup

_MAX_HEAD = 64 * 2**10
_MAX_HELD = 2**20
"""Bytes of a body that wait to be read; beyond it the server has to wait."""

_BEAT_SECONDS = 0.05
"""Between two reads of a quick stream. Text that grows 20 times a second grows
smoothly, and each trip to the socket, and from there through all that waits, costs more
than what is done for a piece."""

_PHASES = 4
"""All streams are read at so many moments of a beat: what wakes the process for many of
them costs less than what wakes it for each. Were there one moment for all, whatever
else comes in would have to wait for that long."""

_EAGER_READS = 4
"""The first words of an answer do not wait."""


class HttpError(Exception):
    """What can go wrong below an answer's meaning."""


class ConnectError(HttpError):
    """Nobody took the connection, or the request, in time."""


class BrokenError(HttpError):
    """The connection ended inside an answer, or what came is no HTTP."""


class StalledError(HttpError):
    """Nothing came for too long."""


class Response:
    """An answer as it comes; `headers` has lower-case names."""

    __slots__ = (
        "_connection", "_error", "_held", "_parts", "_stall", "_wakeup",
        "complete", "headers", "status",
    )  # fmt: skip

    def __init__(
        self, connection: "Connection", wakeup: Wakeup, stall_seconds: float
    ) -> None:
        self.status = 0
        """0 until the head is there."""
        self.headers: dict[str, str] = {}
        self._connection = connection
        self._stall = stall_seconds
        self._wakeup = wakeup
        self._parts: list[bytes] = []
        self._held = 0
        self.complete = False
        """Whether all of it has come; there may still be some to read."""
        self._error: HttpError | None = None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300  # noqa: PLR2004 - the class of 2xx

    @property
    def streams(self) -> bool:
        """Whether the body comes as its parts are made, for all that the head says."""
        return "transfer-encoding" in self.headers

    @property
    def full(self) -> bool:
        """Whether so much waits to be read that no more should come."""
        return self._held > _MAX_HELD

    @property
    def ended(self) -> bool:
        """Whether nothing comes any more, be it complete or broken."""
        return self.complete or self._error is not None

    async def head(self) -> None:
        while not self.status:
            if self._error is not None:
                raise self._error
            if not await self._wakeup.wait(self._stall):
                raise StalledError

    async def parts(self) -> AsyncGenerator[bytes]:
        """The body, in pieces as they came, joined where several wait."""
        while True:
            if self._parts:
                yield self.take()
            elif self.complete:
                return
            elif self._error is not None:
                raise self._error
            elif not await self._wakeup.wait(self._stall):
                raise StalledError

    def take(self) -> bytes:
        """What of the body waits to be read."""
        parts = self._parts
        joined = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        if self._held > _MAX_HELD:
            self._connection.resume()
        self._held = 0
        return joined

    async def read(self, limit: int) -> bytes:
        """The whole body, or its first `limit` bytes."""
        if self.complete:  # as small answers are, once their head is there
            return self.take()[:limit]
        body = bytearray()
        async for part in self.parts():
            body += part
            if len(body) >= limit:
                break
        return bytes(body[:limit])

    # What the connection tells

    @property
    def add(self) -> Callable[[bytes], None]:
        """Takes a part of the body; it is called for each chunk, so it is a list's."""
        return self._parts.append

    def end(self, error: HttpError | None = None) -> None:
        self._error = error
        self.complete = error is None
        self._parts = [*self._parts]  # what is added from now on is not of this answer
        self._wakeup.wake()

    def wake(self, size: int) -> None:
        """So many bytes have come."""
        self._held += size
        if self._held > _MAX_HELD:
            self._connection.pause()
        self._wakeup.wake()


class Connection(asyncio.Protocol):
    """One socket, and the parser of what comes from it."""

    def __init__(self, open_ones: "set[Connection]") -> None:
        self._open_ones = open_ones
        self._response: Response | None = None
        self._answering: Response | None = None
        self._lost = self._paused = False
        self._parser: httptools.HttpResponseParser | None = None
        self._loop = asyncio.get_running_loop()
        # One for all answers: its timer serves many of them.
        self._wakeup = Wakeup()
        self._rest: asyncio.TimerHandle | None = None
        self.idle_since = 0.0

    @property
    def alive(self) -> bool:
        return not self._lost and not self._transport.is_closing()

    def send(self, wire: bytes, stall_seconds: float) -> Response:
        """Gives what comes in answer."""
        self._headers: dict[str, str] = {}
        self._head_size = 0
        self._keep_alive = False
        self._reads = 0
        self._listening_since = 0.0
        self._wakeup.forget()
        response = Response(self, self._wakeup, stall_seconds)
        self._response = self._answering = response
        self.on_body = response.add
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(wire)
        return response

    def finish(self) -> bool:
        """Whether the connection can serve again; where not, it is closed."""
        response, self._response, self._answering = self._response, None, None
        assert response is not None
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if response.complete and self.alive and self._keep_alive:
            self.resume()
            self.idle_since = time.monotonic()
            return True
        self.abort()
        return False

    def abort(self) -> None:
        self._transport.abort()

    def pause(self) -> None:
        if self.alive:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self.alive:
            self._paused = False
            self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open_ones.add(self)

    def data_received(self, data: bytes) -> None:
        response, parser = self._response, self._parser
        # Nobody asked for anything, or no more.
        if response is None or response.ended or parser is None:
            self.abort()
            return
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(str(error))
        else:
            response.wake(len(data))
            if response.streams and not response.ended:
                self._slow_down()

    def _slow_down(self) -> None:
        """Let a stream that comes in many small pieces gather some before each read."""
        self._reads += 1
        now = self._loop.time()
        quick = now - self._listening_since < _BEAT_SECONDS / 2
        self._listening_since = now
        if quick and self._reads > _EAGER_READS and self._rest is None:
            self.pause()
            phase = _BEAT_SECONDS / _PHASES
            moment = (now + _BEAT_SECONDS) // phase * phase
            self._rest = self._loop.call_at(moment, self._go_on)

    def _go_on(self) -> None:
        self._rest = None
        self._listening_since = self._loop.time()
        if self._response is not None and not self._response.full:
            self.resume()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self._open_ones.discard(self)
        # It holds our methods, and a ring of objects, with buffers of the transport and
        # the parser, would wait for the garbage collector.
        self._parser = None
        response = self._response
        if response is None or response.ended:
            self._wakeup.leave()
            return
        if response.status and self._until_close():
            response.end()
        else:
            reason = str(error) if error else "the connection was closed"
            response.end(BrokenError(reason))
        self._wakeup.leave()

    def _until_close(self) -> bool:
        """Whether the end of the connection is how this body's end is told."""
        assert self._response is not None
        headers = self._response.headers
        return "content-length" not in headers and "transfer-encoding" not in headers

    def _break(self, reason: str) -> None:
        if self._answering is not None:
            self._answering.end(BrokenError(reason))
            self._answering = None
        self.abort()

    # httptools' callbacks; what comes after the answer is not for us

    def on_message_begin(self) -> None:
        if self._answering is None:
            self._keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value)
        if self._head_size > _MAX_HEAD:
            self._break("the head of the answer is too long")
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status >= 200 and self._answering is not None:  # noqa: PLR2004 - 1xx announces
            self._answering.headers = self._headers
            self._answering.status = status
        self._headers = {}

    def on_message_complete(self) -> None:
        if self._answering is not None and self._answering.status:
            # The parser knows it only now.
            assert self._parser is not None
            self._keep_alive = self._parser.should_keep_alive()
            self._answering.end()
            self._answering = None
