"""What was told a moment ago, in bounded memory; safe for threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from workroom_auth.identity import Identity


@dataclass(frozen=True, slots=True)
class Entry:
    identity: Identity | None
    """None: the token is not active."""
    fresh_until: float
    usable_until: float
    """Beyond `fresh_until`, only where Workroom cannot be reached."""


class Cache:
    """At most `size` entries; the least recently used go first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._generation = 0

    @property
    def generation(self) -> int:
        """Grows with every invalidation: what was asked for before one is not kept."""
        return self._generation

    def get(self, key: bytes) -> Entry | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def put(self, key: bytes, entry: Entry, *, generation: int) -> None:
        with self._lock:
            if generation != self._generation:
                return
            self._entries[key] = entry
            self._entries.move_to_end(key)
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)

    def drop(self, condition: Callable[[Identity], bool]) -> None:
        """Forget the identities for which `condition` holds."""
        with self._lock:
            self._generation += 1
            for key, entry in list(self._entries.items()):
                if entry.identity is not None and condition(entry.identity):
                    del self._entries[key]

    def clear(self) -> None:
        with self._lock:
            self._generation += 1
            self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)
