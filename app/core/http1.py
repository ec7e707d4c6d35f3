"""An HTTP/1.1 client for long answers in many small pieces (RFC 9112).

A model's answer is hundreds of pieces, and what a client does for each is most of what
a turn costs. This one hands over the bytes of a body as they come off the socket; it
has keep-alive, TLS and time limits, and nothing else: no redirects, cookies, proxies or
compression.
"""

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache, lru_cache
from typing import NamedTuple, cast
from urllib.parse import unquote, urlsplit

import httptools

from app.core.wakeup import Wakeup

_KEEP_SECONDS = 15.0
"""How long an idle connection is used again; servers close them after a while, too."""

_MAX_HEAD = 64 * 2**10
_MAX_HELD = 2**20
"""Bytes of a body that wait to be read; beyond it the server has to wait."""

_PORTS = {"http": 80, "https": 443}
_BODILESS = "GET", "HEAD"


class HttpError(Exception):
    """What can go wrong below an answer's meaning."""


class ConnectError(HttpError):
    """Nobody took the connection, or the request, in time."""


class BrokenError(HttpError):
    """The connection ended inside an answer, or what came is no HTTP."""


class StalledError(HttpError):
    """Nothing came for too long."""


class Address(NamedTuple):
    """Where a URL leads; `target` is its path and query as they are written."""

    scheme: str
    host: str
    port: int
    target: str
    authorization: str = ""

    @classmethod
    @lru_cache
    def of(cls, url: str) -> "Address":
        """Raises ValueError for what is no address of a web server."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"{parts.scheme or 'nothing'} is no web server's scheme")
        host = parts.hostname.encode("ascii" if parts.hostname.isascii() else "idna")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not target.isascii() or not target.isprintable() or " " in target:
            raise ValueError("its path has characters that must be quoted")
        basic = ""
        if parts.username is not None:
            name, password = unquote(parts.username), unquote(parts.password or "")
            basic = base64.b64encode(f"{name}:{password}".encode()).decode()
        port = _PORTS[parts.scheme] if parts.port is None else parts.port
        return cls(
            parts.scheme, host.decode(), port, target, f"Basic {basic}" if basic else ""
        )

    @property
    def authority(self) -> str:
        """As the Host header names it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


_Origin = tuple[str, str, int]


class Client:
    """A pool of connections; each serves one request at a time."""

    def __init__(self, *, connect_seconds: float, stall_seconds: float) -> None:
        """`stall_seconds`: how long a server may send nothing, at any point."""
        self._connect_seconds = connect_seconds
        self._stall_seconds = stall_seconds
        self._idle: dict[_Origin, list[_Connection]] = {}
        self._all: set[_Connection] = set()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        address: Address,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> "AsyncIterator[Response]":
        """Send a request and give the answer, once its head is there.

        Leaving the block before the body's end closes the connection. Raises
        ConnectError, BrokenError and StalledError.
        """
        wire = _request(method, address, headers, body)
        connection = await self._connection(address)
        response = connection.send(wire, self._stall_seconds)
        try:
            await response.head()
            yield response
        finally:
            if connection.finish():
                origin = address[:3]
                self._idle.setdefault(origin, []).append(connection)

    @property
    def connections(self) -> int:
        """How many are open, at work or idle."""
        return sum(connection.alive for connection in self._all)

    async def close(self) -> None:
        """Close every connection; a request opens a new one."""
        self._idle.clear()
        for connection in self._all:
            connection.abort()

    async def _connection(self, address: Address) -> "_Connection":
        oldest = time.monotonic() - _KEEP_SECONDS
        idle = self._idle.get(address[:3], [])
        while idle:
            connection = idle.pop()
            if connection.alive and connection.idle_since > oldest:
                return connection
            connection.abort()
        return await self._connect(address)

    async def _connect(self, address: Address) -> "_Connection":
        secure = address.scheme == "https"
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(self._all),
                    address.host,
                    address.port,
                    ssl=_tls() if secure else None,
                )
        except (OSError, ValueError, TimeoutError) as error:
            raise ConnectError(str(error) or type(error).__name__) from error
        return connection


@cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _request(
    method: str, address: Address, headers: Mapping[str, str], body: bytes | None
) -> bytes:
    sent = {
        "Host": address.authority,
        "Accept": "*/*",
        "Accept-Encoding": "identity",  # a compressed stream would come in lumps
        "User-Agent": "workroom",
    }
    if address.authorization:
        sent["Authorization"] = address.authorization
    sent |= headers
    if body is not None or method not in _BODILESS:
        sent["Content-Length"] = str(len(body or b""))
    lines = [f"{method} {address.target} HTTP/1.1"]
    for name, value in sent.items():
        if "\n" in value or "\r" in value or "\0" in value:
            raise ValueError(f"the header {name} would be more than one line")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + (body or b"")


class Response:
    """An answer as it comes; `headers` has lower-case names."""

    __slots__ = (
        "_complete", "_connection", "_error", "_held", "_parts", "_stall", "_wakeup",
        "headers", "status",
    )  # fmt: skip

    def __init__(self, connection: "_Connection", stall_seconds: float) -> None:
        self.status = 0
        """0 until the head is there."""
        self.headers: dict[str, str] = {}
        self._connection = connection
        self._stall = stall_seconds
        self._wakeup = Wakeup()
        self._parts: list[bytes] = []
        self._held = 0
        self._complete = False
        self._error: HttpError | None = None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300  # noqa: PLR2004 - the class of 2xx

    @property
    def complete(self) -> bool:
        """Whether all of it has come; there may still be some to read."""
        return self._complete

    @property
    def ended(self) -> bool:
        """Whether nothing comes any more, be it complete or broken."""
        return self._complete or self._error is not None

    async def head(self) -> None:
        while not self.status:
            await self._more()

    async def parts(self) -> AsyncGenerator[bytes]:
        """The body, in pieces as they came, joined where several wait."""
        while True:
            if self._parts:
                yield self.take()
            elif self._complete:
                return
            elif self._error is not None:
                raise self._error
            elif not await self._wakeup.wait(self._stall):
                raise StalledError

    def take(self) -> bytes:
        """What of the body waits to be read."""
        parts, self._parts = self._parts, []
        if self._held > _MAX_HELD:
            self._connection.resume()
        self._held = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read(self, limit: int) -> bytes:
        """The whole body, or its first `limit` bytes."""
        body = bytearray()
        async for part in self.parts():
            body += part
            if len(body) >= limit:
                break
        return bytes(body[:limit])

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        if not await self._wakeup.wait(self._stall):
            raise StalledError

    # What the connection tells

    def add(self, part: bytes) -> None:
        self._parts.append(part)
        self._held += len(part)
        if self._held > _MAX_HELD:
            self._connection.pause()

    def end(self, error: HttpError | None = None) -> None:
        self._error = error
        self._complete = error is None
        self._wakeup.wake()

    def wake(self) -> None:
        self._wakeup.wake()

    def leave(self) -> None:
        self._wakeup.leave()


class _Connection(asyncio.Protocol):
    """One socket, and the parser of what comes from it."""

    def __init__(self, open_ones: "set[_Connection]") -> None:
        self._open_ones = open_ones
        self._response: Response | None = None
        self._answering: Response | None = None
        self._lost = False
        self.idle_since = 0.0

    @property
    def alive(self) -> bool:
        return not self._lost and not self._transport.is_closing()

    def send(self, wire: bytes, stall_seconds: float) -> Response:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._head_size = 0
        self._keep_alive = False
        self._response = self._answering = Response(self, stall_seconds)
        self._transport.write(wire)
        return self._response

    def finish(self) -> bool:
        """Whether the connection can serve again; where not, it is closed."""
        response, self._response, self._answering = self._response, None, None
        assert response is not None
        response.leave()
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
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.alive:
            self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open_ones.add(self)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None or response.ended:  # nobody asked for anything
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(str(error))
        else:
            response.wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self._open_ones.discard(self)
        response = self._response
        if response is None or response.ended:
            return
        if response.status and self._until_close():
            response.end()
        else:
            reason = str(error) if error else "the connection was closed"
            response.end(BrokenError(reason))

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
        status = self._parser.get_status_code()
        if status >= 200 and self._answering is not None:  # noqa: PLR2004 - 1xx announces
            self._answering.headers = self._headers
            self._answering.status = status
        self._headers = {}

    def on_body(self, body: bytes) -> None:
        if self._answering is not None:
            self._answering.add(body)

    def on_message_complete(self) -> None:
        if self._answering is not None and self._answering.status:
            # The parser knows it only now.
            self._keep_alive = self._parser.should_keep_alive()
            self._answering.end()
            self._answering = None
