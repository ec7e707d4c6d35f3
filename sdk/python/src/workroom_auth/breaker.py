"""A circuit breaker: who does not answer is left in peace for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Breaker:
    """Opens after `failures` in a row; after `seconds`, one call at a time tries."""

    def __init__(
        self,
        *,
        failures: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = failures
        self._seconds = seconds
        self._clock = clock
        self._failures = 0
        self._opened = 0.0
        self._lock = threading.Lock()

    def allows(self) -> bool:
        """Whether to call now; whoever is told so must report how it went."""
        with self._lock:
            if self._failures < self._most:
                return True
            if self._clock() - self._opened < self._seconds:
                return False
            self._opened = self._clock()  # the others wait for how this one goes
            return True

    def succeeded(self) -> None:
        with self._lock:
            self._failures = 0

    def failed(self) -> None:
        with self._lock:
            self._failures += 1
            self._opened = self._clock()
