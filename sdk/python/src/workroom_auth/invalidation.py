"""Hears from Workroom's Redis which sessions, keys and users have ended."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

_SESSIONS = "workroom:session.forget"
_USERS = "workroom:user.forget"
_PATIENCE = 1.0  # seconds
_log = logging.getLogger("workroom_auth")


class Listener:
    """A thread that listens; what it may have missed, `on_gap` makes good."""

    def __init__(
        self,
        url: str,
        *,
        on_session: Callable[[str], None],
        on_user: Callable[[str], None],
        on_gap: Callable[[], None],
    ) -> None:
        self._url = url
        self._handlers = {_SESSIONS: on_session, _USERS: on_user}
        self._on_gap = on_gap
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self.listening = threading.Event()

    def start(self) -> None:
        """Begin to listen; where it does already, do nothing."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="workroom-auth-redis", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._listen()
            except (RedisError, OSError) as error:
                if self.listening.is_set():
                    _log.warning("Redis is lost; revocations take longer: %s", error)
            self.listening.clear()
            self._ended.wait(_PATIENCE)

    def _listen(self) -> None:
        client: Any = Redis.from_url(
            self._url, socket_timeout=2 * _PATIENCE, socket_connect_timeout=_PATIENCE
        )
        try:
            with client.pubsub(ignore_subscribe_messages=True) as pubsub:
                pubsub.subscribe(*self._handlers)
                pubsub.ping()
                self._on_gap()
                self.listening.set()
                while not self._ended.is_set():
                    message = pubsub.get_message(timeout=_PATIENCE)
                    if message is None:
                        pubsub.ping()  # fails where the other end is gone
                    elif message["type"] == "message":
                        self._hear(message)
        finally:
            client.close()

    def _hear(self, message: dict[str, Any]) -> None:
        handler = self._handlers.get(message["channel"].decode())
        if handler is not None and len(message["data"]) == 16:  # noqa: PLR2004 - a UUID
            handler(str(uuid.UUID(bytes=message["data"])))
