"""Answers that are kept for equal calls by the same API key.

They are in the memory of this process alone, and the requests that they answer only as
a digest. Who may have one is asked before, as for any call.
"""

import time
from asyncio import to_thread
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

import orjson

from app.integrations.llm.base import ModelInfo
from app.services.gateway.format import Format
from app.services.gateway.incoming import Incoming

MOST_BYTES = 64 * 2**20
MOST_ENTRY = 2**20  # bytes
_OVERHEAD = 1024  # about what an answer takes besides its bytes
_LARGE = 64 * 2**10  # bytes


class Name(NamedTuple):
    """What makes calls equal; `digest` is that of all they ask for."""

    user_id: UUID
    key_id: UUID
    format: Format
    digest: bytes


async def name_of(incoming: Incoming, key_id: UUID) -> Name:
    if incoming.size > _LARGE:
        digest = await to_thread(_digest, incoming)
    else:
        digest = _digest(incoming)
    return Name(incoming.principal.user_id, key_id, incoming.format, digest)


def _digest(incoming: Incoming) -> bytes:
    """Neither blanks nor the order of fields make a difference to it."""
    digest = sha256(incoming.betas.encode())
    digest.update(b"\n")  # which no header holds
    digest.update(orjson.dumps(incoming.body, option=orjson.OPT_SORT_KEYS))
    return digest.digest()


@dataclass(frozen=True, slots=True)
class Kept:
    """A complete answer, as it went to the client: a stream is one piece.

    `text` is what the message log tells of it, in UTF-8.
    """

    model: ModelInfo
    body: bytes
    text: bytes

    @property
    def size(self) -> int:
        """About what it takes, in bytes."""
        return len(self.body) + len(self.text) + _OVERHEAD


class Answers:
    """At most `MOST_BYTES` of them; the least recently used go first."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[Name, tuple[float, Kept]] = OrderedDict()
        self.size = 0

    def find(self, name: Name, *, seconds: int) -> Kept | None:
        """The answer, where it is younger than that."""
        if name not in self._kept:
            return None
        since, kept = self._kept[name]
        if self._clock() - since >= seconds:
            self._drop(name)
            return None
        self._kept.move_to_end(name)
        return kept

    def keep(self, name: Name, kept: Kept) -> None:
        """In the place of an older one; what is larger than an entry may be is not."""
        if name in self._kept:
            self._drop(name)
        if kept.size > MOST_ENTRY:
            return
        self._kept[name] = (self._clock(), kept)
        self.size += kept.size
        while self.size > MOST_BYTES:
            self._drop(next(iter(self._kept)))

    def forget(self, keys: frozenset[UUID], user_id: UUID | None) -> None:
        """Nothing is left of a key that ends, nor of a user who goes (TRUST D3)."""
        for name in tuple(self._kept):
            if name.key_id in keys or name.user_id == user_id:
                self._drop(name)

    def _drop(self, name: Name) -> None:
        _, kept = self._kept.pop(name)
        self.size -= kept.size
