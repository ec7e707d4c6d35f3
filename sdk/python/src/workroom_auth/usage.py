"""What users used up here, told to Workroom in batches."""

from __future__ import annotations

import atexit
import logging
import re
import threading
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

from workroom_auth.errors import UnavailableError

_BATCH = 500
_MOST = 100_000
_KIND = re.compile(r"[a-z][a-z0-9_.:-]{0,63}")
_LARGEST = 10**12
_log = logging.getLogger("workroom_auth")

Report = dict[str, Any]


class Reporter:
    """Keeps reports until Workroom has them.

    Each has an id of its own, so that one that is sent twice counts once.
    """

    def __init__(self, send: Callable[[list[Report]], None], *, seconds: float) -> None:
        self._send = send
        self._seconds = seconds
        self._waiting: deque[Report] = deque()
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, subject: str, kind: str, amount: int) -> bool:
        """Raises ValueError for what Workroom would refuse."""
        if not _KIND.fullmatch(kind):
            raise ValueError(f"{kind!r} is no kind: use small letters, such as pages")
        if not 1 <= amount <= _LARGEST:
            raise ValueError("an amount is a whole number of at least 1")
        report = {
            "subject": str(uuid.UUID(subject)),
            "kind": kind,
            "amount": amount,
            "id": str(uuid.uuid4()),
        }
        with self._lock:
            if len(self._waiting) >= _MOST:
                return False
            self._waiting.append(report)
            if self._thread is None and not self._closed:
                self._start()
            full = len(self._waiting) >= _BATCH
        if full:
            self._wake.set()
        return True

    def flush(self) -> bool:
        """Send all that waits; False where Workroom does not take it now."""
        with self._sending:
            while True:
                with self._lock:
                    batch = [*self._waiting][:_BATCH]
                if not batch:
                    return True
                try:
                    self._send(batch)
                except UnavailableError as error:
                    _log.warning("usage waits to be reported: %s", error.detail)
                    return False
                with self._lock:
                    for _ in batch:
                        self._waiting.popleft()

    def close(self) -> None:
        """Try once more, then forget the rest."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            atexit.unregister(self.close)
        self.flush()

    def _start(self) -> None:
        self._thread = threading.Thread(
            target=self._run, name="workroom-auth-usage", daemon=True
        )
        self._thread.start()
        atexit.register(self.close)

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(self._seconds)
            self._wake.clear()
            if not self._closed and not self.flush():
                # Not again at once, however full it is.
                threading.Event().wait(min(self._seconds, 1.0))
