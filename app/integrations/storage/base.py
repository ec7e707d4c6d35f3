"""The port behind which the bytes of files are kept.

A key is a path of plain names with slashes between them, made by us: no part of it is
ever what a user wrote.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.core.exceptions import UnavailableError


class StorageError(UnavailableError):
    """It cannot be reached, has no room, or does not let us in."""

    code = "storage_unavailable"


class MissingObjectError(StorageError):
    """What the database names is not there (any more)."""

    code = "object_missing"


@dataclass(frozen=True, slots=True)
class StoredObject:
    key: str
    size: int
    modified_at: datetime


class Storage(Protocol):
    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Store what comes, whole or not at all: what `chunks` raises, it raises.

        It holds about two pieces of 5 MiB, however much comes.
        """

    def read(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes from `start` up to, without, `end`, in pieces.

        Raises MissingObjectError before the first.
        """

    async def delete(self, keys: Sequence[str]) -> None:
        """Those that are not there count as deleted."""

    def objects(self, prefix: str) -> AsyncIterator[StoredObject]:
        """All whose keys begin with that folder, which ends in a slash."""

    async def sweep(self, before: datetime) -> None:
        """Delete what uploads left that broke off before then, with their process."""

    async def url(self, key: str, *, disposition: str, seconds: int) -> str | None:
        """An address from which anybody can read it for so long.

        None where this storage has none.
        """
