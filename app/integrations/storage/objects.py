"""What the storages have in common: obstore, which speaks to all of them alike."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Self

from app.integrations.storage.base import (
    MissingObjectError,
    StorageError,
    StoredObject,
)

_PART = 5 * 2**20  # bytes: the least that S3 takes
_PARTS_AT_ONCE = 2
_PIECE = 256 * 2**10


class ObjectStorage(ABC):
    def __init__(self) -> None:
        self._opened: Any = None

    @abstractmethod
    def _open(self) -> Any:
        """Gives obstore's store; called once, in a thread: it takes time to load."""

    async def _store(self) -> Any:
        if self._opened is None:
            self._opened = await asyncio.to_thread(self._open)
        return self._opened

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        store, obstore = await self._store(), _obstore()
        feed = _Feed(chunks)
        upload = asyncio.ensure_future(
            obstore.put_async(
                store,
                key,
                feed,
                use_multipart=True,
                chunk_size=_PART,
                max_concurrency=_PARTS_AT_ONCE,
            )
        )
        with _translated():
            try:
                await asyncio.shield(upload)
            except asyncio.CancelledError:
                # Told by an error it takes back what is stored; cancelled, it does not.
                feed.break_off()
                await asyncio.wait([upload])
                raise

    async def read(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        store, obstore = await self._store(), _obstore()
        wanted: Any = {"offset": start} if end is None else (start, end)
        options: Any = {"range": wanted} if start or end is not None else None
        with _translated():
            found = await obstore.get_async(store, key, options=options)
            async for piece in found.stream(min_chunk_size=_PIECE):
                yield bytes(piece)

    async def delete(self, keys: Sequence[str]) -> None:
        store, obstore = await self._store(), _obstore()
        for key in keys:
            try:
                with _translated():
                    await obstore.delete_async(store, key)
            except MissingObjectError:
                continue

    async def objects(self, prefix: str) -> AsyncIterator[StoredObject]:
        store, obstore = await self._store(), _obstore()
        with _translated():
            async for some in obstore.list(store, prefix):
                for one in some:
                    yield StoredObject(one["path"], one["size"], one["last_modified"])

    async def sweep(self, before: datetime) -> None:  # noqa: B027 - most have nothing to do
        """Nothing by default: what broke off is the storage's own to forget."""

    async def url(self, key: str, *, disposition: str, seconds: int) -> str | None:
        del key, disposition, seconds
        return None


def _obstore() -> Any:
    import obstore.exceptions  # noqa: PLC0415 - 5 MB, for a process that meets a file

    return obstore


class _Feed:
    """What comes, until it is broken off."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._next: asyncio.Task[bytes] | None = None
        self._broken_off = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._broken_off:
            raise _BrokenOffError
        self._next = asyncio.ensure_future(_pull(self._chunks))
        try:
            chunk = await self._next
        except asyncio.CancelledError:
            raise _BrokenOffError from None
        if not chunk:
            raise StopAsyncIteration
        return chunk

    def break_off(self) -> None:
        self._broken_off = True
        if self._next is not None:
            self._next.cancel()


class _BrokenOffError(Exception):
    pass


async def _pull(chunks: AsyncIterator[bytes]) -> bytes:
    """The next one that holds anything; nothing at the end."""
    async for chunk in chunks:
        if chunk:
            return chunk
    return b""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise MissingObjectError(
            "The file's content is not in storage any more."
        ) from error
    except (_obstore().exceptions.BaseError, OSError) as error:
        raise StorageError(
            "The files' storage does not answer as it should."
        ) from error
