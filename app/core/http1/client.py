"""A pool of connections, and requests as they go over the wire."""

import asyncio
import ssl
import time
from collections.abc import Mapping
from functools import cache, lru_cache

from app.core.http1.address import Address
from app.core.http1.connection import ConnectError, Connection, Response

_KEEP_SECONDS = 15.0
"""How long an idle connection is used again; servers close them after a while, too."""

_BODILESS = "GET", "HEAD"
_Origin = tuple[str, str, int]


class Client:
    """A pool of connections; each serves one request at a time."""

    def __init__(self, *, connect_seconds: float, stall_seconds: float) -> None:
        """`stall_seconds`: how long a server may send nothing, at any point."""
        self._connect_seconds = connect_seconds
        self.stall_seconds = stall_seconds
        self._idle: dict[_Origin, list[Connection]] = {}
        self._all: set[Connection] = set()

    def request(
        self,
        method: str,
        address: Address,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> "Exchange":
        """An `async with` sends a request and gives the answer, once its head is there.

        Leaving the block before the body's end closes the connection. Raises
        ConnectError, BrokenError and StalledError.
        """
        return Exchange(self, address, _request(method, address, headers, body))

    def end(self, address: Address, connection: Connection) -> None:
        if connection.finish():
            self._idle.setdefault(address[:3], []).append(connection)

    @property
    def connections(self) -> int:
        """How many are open, at work or idle."""
        return sum(connection.alive for connection in self._all)

    async def close(self) -> None:
        """Close every connection; a request opens a new one."""
        self._idle.clear()
        for connection in self._all:
            connection.abort()

    def idle(self, address: Address) -> Connection | None:
        """A connection that can serve again, where there is one."""
        idle = self._idle.get(address[:3])
        if not idle:
            return None
        oldest = time.monotonic() - _KEEP_SECONDS
        while idle:
            connection = idle.pop()
            if connection.alive and connection.idle_since > oldest:
                return connection
            connection.abort()
        return None

    async def connect(self, address: Address) -> Connection:
        """A new one; raises ConnectError."""
        secure = address.scheme == "https"
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self._all),
                    address.host,
                    address.port,
                    ssl=_tls() if secure else None,
                )
        except (OSError, ValueError, TimeoutError) as error:
            raise ConnectError(str(error) or type(error).__name__) from error
        return connection


class Exchange:
    """A request, and its answer as long as the block lasts."""

    __slots__ = ("_address", "_client", "_connection", "_wire", "sent")

    def __init__(self, client: Client, address: Address, wire: bytes) -> None:
        self._client = client
        self._address = address
        self._wire = wire
        self.sent = False
        """Whether there is a connection, so that the server may know of it."""

    async def __aenter__(self) -> Response:
        client, address = self._client, self._address
        self._connection = client.idle(address) or await client.connect(address)
        response = self._connection.send(self._wire, client.stall_seconds)
        self.sent = True
        begun = False
        try:
            await response.head()
            begun = True
        finally:
            if not begun:  # the block does not begin, nor end
                self.end()
        return response

    async def __aexit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """What the block's end does."""
        self._client.end(self._address, self._connection)


@cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _request(
    method: str, address: Address, headers: Mapping[str, str], body: bytes | None
) -> bytes:
    head = _head(method, address, tuple(headers.items()))
    if body is None:
        return head + (b"\r\n" if method in _BODILESS else b"Content-Length: 0\r\n\r\n")
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


@lru_cache(256)
def _head(method: str, address: Address, headers: tuple[tuple[str, str], ...]) -> bytes:
    """All but the length and the blank line; most requests begin as others did."""
    sent = {
        "Host": address.authority,
        "Accept": "*/*",
        "Accept-Encoding": "identity",  # a compressed stream would come in lumps
        "User-Agent": "workroom",
    }
    if address.authorization:
        sent["Authorization"] = address.authorization
    sent |= dict(headers)
    lines = [f"{method} {address.target} HTTP/1.1"]
    for name, value in sent.items():
        if "\n" in value or "\r" in value or "\0" in value:
            raise ValueError(f"the header {name} would be more than one line")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, ""]).encode("latin-1", "replace")
