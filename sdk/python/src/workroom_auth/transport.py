"""HTTP over kept connections, with the standard library alone; safe for threads."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from workroom_auth.errors import UnavailableError

_IDLE = 16
_LARGEST = 2**20


class Answer(NamedTuple):
    status: int
    retry_after: int | None
    body: bytes


class Transport:
    """One server; idle connections are kept for the next call.

    A call takes at most `seconds` to connect, and again for each wait for bytes.
    """

    def __init__(self, url: str, *, service_key: str, seconds: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url!r} is no address: write https://workroom.example")
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path.rstrip("/") + "/api/v1"
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._headers = {"Authorization": f"Bearer {service_key}"}
        self._seconds = seconds
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def post(self, path: str, body: bytes, content_type: str) -> Answer:
        """Raises UnavailableError where no answer comes."""
        headers = {**self._headers, "Content-Type": content_type}
        kept = self._kept()
        if kept is not None:
            try:
                return self._send(kept, path, body, headers)
            except (OSError, http.client.HTTPException):
                # The server may have closed it meanwhile; a new one tells.
                kept.close()
        fresh = self._connection()
        try:
            return self._send(fresh, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            fresh.close()
            raise UnavailableError("Workroom cannot be reached.") from error

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def forget_connections(self) -> None:
        """In a forked process: they are the parent's."""
        self._lock = threading.Lock()
        self._idle = []

    def _kept(self) -> http.client.HTTPConnection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _keep(self, connection: http.client.HTTPConnection) -> bool:
        with self._lock:
            if len(self._idle) >= _IDLE:
                return False
            self._idle.append(connection)
            return True

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(
                self._host, self._port, timeout=self._seconds
            )
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=self._seconds, context=self._tls
        )

    def _send(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
    ) -> Answer:
        connection.request("POST", self._path + path, body, dict(headers))
        response = connection.getresponse()
        content = response.read(_LARGEST)
        wait = response.headers.get("Retry-After", "")
        reusable = response.isclosed() and not response.will_close
        if not (reusable and self._keep(connection)):
            connection.close()
        retry_after = int(wait) if wait.isdecimal() else None
        return Answer(response.status, retry_after, content)
