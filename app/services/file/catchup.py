"""Ready files get what was not done when they came.

They came before there was a virus scanner, or before images were scaled for models.
"""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, and_, delete, or_, select

from app.core.database import Database
from app.integrations.parsing.base import (
    MAX_IMAGE_BYTES,
    MAX_IMAGE_EDGE,
    UnreadableFileError,
)
from app.integrations.scanning.base import ScannerRefusedError
from app.integrations.storage.base import MissingObjectError
from app.models import File, FileText
from app.services.file.inspection import Inspection, locked, reject

_SPELL_SECONDS = 3000.0
"""Of `run`, which is begun anew every hour."""

_IS_UNSCALED = and_(
    File.kind == "image",
    File.scaled_size.is_(None),
    or_(
        File.size > MAX_IMAGE_BYTES,
        File.width > MAX_IMAGE_EDGE,
        File.height > MAX_IMAGE_EDGE,
    ),
)

_log = structlog.get_logger()


class CatchUp:
    def __init__(self, *, database: Database, inspection: Inspection) -> None:
        self._database = database
        self._inspection = inspection

    async def run(self) -> None:
        """One file after the other, as far as that comes in an hour.

        Until then they stay ready. Raises ScannerError where the scanner is away.
        """
        until = time.monotonic() + _SPELL_SECONDS
        if self._inspection.scans:
            await self._each(~File.scanned, self._scan, until=until)
        await self._each(_IS_UNSCALED, self._scale, until=until)

    async def _each(
        self,
        lacks: ColumnElement[bool],
        mend: Callable[[File], Awaitable[None]],
        *,
        until: float,
    ) -> None:
        last = UUID(int=0)
        while time.monotonic() < until:
            wanted = File.id > last, File.status == "ready", lacks
            async with self._database.unit_of_work(read_only=True) as session:
                file = await session.scalar(
                    select(File).where(*wanted).order_by(File.id).limit(1)
                )
            if file is None:
                return
            last = file.id
            try:
                await mend(file)
            except (MissingObjectError, ScannerRefusedError) as error:
                _log.warning("file_not_mended", id=str(last), reason=error.detail)

    async def _scan(self, file: File) -> None:
        reason = None
        try:
            await self._inspection.scan(file)
        except UnreadableFileError as error:
            reason = error.detail
        async with self._database.unit_of_work() as session:
            there = await locked(session, file.id, "ready")
            if there is None:
                return
            there.scanned = True
            if reason is not None:
                await session.execute(
                    delete(FileText).where(FileText.file_id == file.id)
                )
                there.has_text = there.has_thumbnail = False
                reject(session, there, reason)

    async def _scale(self, file: File) -> None:
        with TemporaryDirectory(prefix="workroom-") as folder:
            try:
                scaled = (await self._inspection.parse(file, Path(folder))).scaled
            except UnreadableFileError:  # as it is now seen; it was good before
                scaled = None
            size = scaled.stat().st_size if scaled else 0
        async with self._database.unit_of_work() as session:
            there = await locked(session, file.id, "ready")
            if there is not None:
                there.scaled_size = size
        if there is None:
            await self._inspection.forget_pictures(file)
