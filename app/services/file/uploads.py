"""Uploads: what comes goes on to storage at once, and is hashed on the way.

Storage gets a file whole or not at all, and the row comes after it. Whatever breaks off
between the two, the sweep deletes (see `sweeping`).
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Self
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.config import StorageSettings
from app.core.database import Database
from app.core.exceptions import (
    FieldError,
    NotFoundError,
    OverloadedError,
    PayloadTooLargeError,
    ValidationFailedError,
)
from app.integrations.storage.base import Storage, StorageError
from app.models import File, User
from app.schemas.file import FILE_NAME
from app.services import job as jobs
from app.services.authorization import Principal
from app.services.file import kinds, places
from app.services.file.files import stored_bytes
from app.services.plan import Plans

_AT_ONCE = 16
"""Of one process: each holds some 15 MB of what is on its way."""

_INSPECTIONS = 30
"""Tries of the job that looks into a file: in a day a scanner may be back."""


class Uploads:
    def __init__(
        self,
        settings: StorageSettings,
        *,
        database: Database,
        storage: Storage,
        plans: Plans,
    ) -> None:
        self._most = settings.max_file_bytes
        self._database = database
        self._storage = storage
        self._plans = plans
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def store(
        self, principal: Principal, name: str, chunks: AsyncIterator[bytes]
    ) -> tuple[File, bool]:
        """Store a file; False beside one whose bytes were there already.

        Raises ValidationFailedError for its name or an empty one, PayloadTooLargeError
        beyond the plan's size of a file or its storage, UnsupportedMediaTypeError for
        what it is, OverloadedError beside too many others, and what `chunks` raises.
        """
        name = checked_name(name)
        if self._slots.locked():
            raise OverloadedError("Too many files are being uploaded")
        async with self._slots:
            return await self._store(principal.user_id, name, chunks)

    async def _store(
        self, user_id: UUID, name: str, chunks: AsyncIterator[bytes]
    ) -> tuple[File, bool]:
        limits = await self._plans.of(user_id)
        most = min(self._most, limits.file_bytes or self._most)
        async with self._database.unit_of_work(read_only=True) as session:
            room = await _room(session, user_id, limits.storage_bytes)
        file_id = uuid7()
        key = places.original(user_id, file_id)
        intake = _Intake(chunks, name=name, most=most, room=room)
        file: File | None = None
        stored: File | None = None
        try:
            await self._storage.put(key, intake)
            file = intake.file(user_id, file_id)
            async with self._database.unit_of_work() as session:
                stored = await _register(session, file, limits.storage_bytes)
        finally:
            # Whatever went wrong: nobody else knows of what was stored.
            if stored is None or stored is not file:
                await self._forget(key)
        return stored, stored is file

    async def _forget(self, key: str) -> None:
        with suppress(StorageError):  # the sweep finds it
            await asyncio.shield(self._storage.delete([key]))


def checked_name(name: str) -> str:
    """Raises ValidationFailedError for one that no file may have."""
    try:
        return FILE_NAME.validate_python(name)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ValidationFailedError(
            f"The file's name: {message}.",
            errors=[FieldError(path="file", message=message)],
        ) from error


class _Intake:
    """The bytes on their way: counted, hashed, and their beginning looked at."""

    def __init__(
        self, chunks: AsyncIterator[bytes], *, name: str, most: int, room: int | None
    ) -> None:
        self._chunks = chunks
        self._name = name
        self._most = most
        self._room = room
        self._hash = hashlib.sha256()
        self._size = 0
        self._head = b""
        self._kind: kinds.Kind | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        async for chunk in self._chunks:
            if chunk:
                self._take(chunk)
                return chunk
        if self._size == 0:
            raise _empty()
        self._look()
        raise StopAsyncIteration

    def _take(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._most:
            raise PayloadTooLargeError(
                f"The file is too large: your plan takes up to {self._most:,} bytes.",
                code="file_too_large",
            )
        if self._room is not None and self._size > self._room:
            raise _no_room()
        self._hash.update(chunk)
        if self._kind is None:
            self._head += chunk[: kinds.HEAD]
            if len(self._head) >= kinds.HEAD:
                self._look()

    def _look(self) -> None:
        if self._kind is None:
            self._kind = kinds.of(self._head[: kinds.HEAD], self._name)

    def file(self, user_id: UUID, file_id: UUID) -> File:
        assert self._kind is not None  # it was looked at as it ended, at the latest
        return File(
            id=file_id,
            user_id=user_id,
            name=self._name,
            mime=self._kind.mime,
            kind=self._kind.kind,
            size=self._size,
            sha256=self._hash.hexdigest(),
        )


async def _register(
    session: AsyncSession, file: File, storage_bytes: int | None
) -> File:
    """Store its row, or give that of the same bytes; raises where there is no room."""
    # One at a time: of two uploads at once, the second sees what the first took.
    owner = await session.scalar(
        select(User.id)
        .where(User.id == file.user_id, User.status == "active")
        .with_for_update()
    )
    if owner is None:
        raise NotFoundError("There is no such account any more.")
    same = await session.scalar(
        select(File).where(
            File.user_id == file.user_id,
            File.sha256 == file.sha256,
            File.status != "rejected",
        )
    )
    if same is not None:
        return same
    room = await _room(session, file.user_id, storage_bytes)
    if room is not None and file.size > room:
        raise _no_room()
    session.add(file)
    await session.flush()
    jobs.enqueue(
        session, "file.inspect", file_id=str(file.id), max_attempts=_INSPECTIONS
    )
    return file


async def _room(
    session: AsyncSession, user_id: UUID, storage_bytes: int | None
) -> int | None:
    """The bytes that are left; None is no limit."""
    if storage_bytes is None:
        return None
    return max(0, storage_bytes - await stored_bytes(session, user_id))


def _no_room() -> PayloadTooLargeError:
    return PayloadTooLargeError(
        "Your plan's storage is full: delete files that you no longer need.",
        code="storage_full",
    )


def _empty() -> ValidationFailedError:
    message = "is empty"
    return ValidationFailedError(
        f"The file {message}.", errors=[FieldError(path="file", message=message)]
    )
