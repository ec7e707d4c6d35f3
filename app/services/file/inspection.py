"""Looking into a file that was uploaded: the job that makes it ready, or rejects it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import Database
from app.integrations.parsing.base import Parsed, UnreadableFileError
from app.integrations.parsing.process import Parser
from app.integrations.scanning.base import Scanner
from app.integrations.storage.base import MissingObjectError, Storage
from app.models import File, FileText
from app.services import job as jobs
from app.services.file import kinds, places

_PIECE = 2**20


class Inspection:
    def __init__(
        self,
        *,
        database: Database,
        storage: Storage,
        parser: Parser,
        scanner: Scanner,
    ) -> None:
        self._database = database
        self._storage = storage
        self._parser = parser
        self._scanner = scanner

    @property
    def scans(self) -> bool:
        """Whether there is a virus scanner."""
        return self._scanner.scans

    async def inspect(self, file_id: UUID) -> None:
        """Make it ready or reject it; does nothing to one that is no longer pending."""
        async with self._database.unit_of_work(read_only=True) as session:
            file = await session.get(File, file_id)
        if file is None or file.status != "pending":
            return
        try:
            with TemporaryDirectory(prefix="workroom-") as folder:
                await self._look_into(file, Path(folder))
        except UnreadableFileError as error:
            await self._reject(file_id, error.detail)
        except MissingObjectError:
            await self._reject(file_id, "was lost before it could be looked into")

    async def scan(self, file: File) -> None:
        """Raises UnreadableFileError for a virus, ScannerError, MissingObjectError."""
        key = places.original(file.user_id, file.id)
        found = await self._scanner.scan(self._storage.read(key))
        if found is not None:
            raise UnreadableFileError(f"holds a virus: {found}")

    async def parse(self, file: File, folder: Path) -> Parsed:
        """What is in it; its pictures are put into storage.

        Raises UnreadableFileError and MissingObjectError.
        """
        path, written = folder / "file", folder / "found"
        await asyncio.to_thread(written.mkdir)
        original = places.original(file.user_id, file.id)
        await _save(self._storage.read(original), path)
        parsed = await self._parser.parse(path, file.mime, written)
        for place, picture in (
            (places.thumbnail, parsed.thumbnail),
            (places.scaled, parsed.scaled),
        ):
            if picture is not None:
                key = place(file.user_id, file.id)
                await self._storage.put(key, _pieces(picture))
        return parsed

    async def forget_pictures(self, file: File) -> None:
        """Of one that was deleted while they were made."""
        made = (places.thumbnail, places.scaled)
        await self._storage.delete([place(file.user_id, file.id) for place in made])

    async def _look_into(self, file: File, folder: Path) -> None:
        await self.scan(file)
        parsed = await self.parse(file, folder)
        async with self._database.unit_of_work() as session:
            kept = await _make_ready(session, file.id, parsed, scanned=self.scans)
        if not kept:
            await self.forget_pictures(file)

    async def _reject(self, file_id: UUID, reason: str) -> None:
        async with self._database.unit_of_work() as session:
            file = await locked(session, file_id, "pending")
            if file is not None:
                reject(session, file, reason)


def reject(session: AsyncSession, file: File, reason: str) -> None:
    """Keep the row, to say why, and nothing else of it."""
    file.status, file.reason = "rejected", f"The file {reason}."[:500]
    remove(session, file)


def remove(session: AsyncSession, file: File) -> None:
    """Have storage rid of it, once this is committed."""
    jobs.enqueue(
        session, "file.remove", user_id=str(file.user_id), file_id=str(file.id)
    )


async def _make_ready(
    session: AsyncSession, file_id: UUID, parsed: Parsed, *, scanned: bool
) -> bool:
    file = await locked(session, file_id, "pending")
    if file is None:
        return False
    file.status, file.scanned = "ready", scanned
    file.mime = parsed.mime
    file.kind = kinds.of_parsed(parsed.mime, file.kind)
    file.width, file.height, file.pages = parsed.width, parsed.height, parsed.page_count
    file.has_text = parsed.text is not None
    file.has_thumbnail = parsed.thumbnail is not None
    if parsed.scaled is not None:
        file.scaled_size = parsed.scaled.stat().st_size
    if parsed.text is not None:
        session.add(FileText(file_id=file_id, text=parsed.text, pages=parsed.pages))
    return True


async def locked(session: AsyncSession, file_id: UUID, status: str) -> File | None:
    """The file, if it is still there and so."""
    found: File | None = await session.scalar(
        select(File).where(File.id == file_id, File.status == status).with_for_update()
    )
    return found


async def _save(pieces: AsyncIterator[bytes], path: Path) -> None:
    with path.open("wb") as file:
        async for piece in pieces:
            await asyncio.to_thread(file.write, piece)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece
