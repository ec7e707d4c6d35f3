"""How documents come into the index, and out of it.

A short text is indexed with the change itself, so it is found as soon as that is
stored. A longer one is left to a job, which works in small steps and rests after each
as long as the step took: what others wait for, a reply above all, comes in between.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from time import perf_counter
from uuid import UUID

from sqlalchemy import Table, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from app.core.database import Database, changed_rows
from app.core.exceptions import AppError
from app.integrations.llm.tokens import estimate_tokens
from app.models import Chunk, Posting, ProjectDocument
from app.services import job as jobs
from app.services.knowledge.chunking import Piece, pieces
from app.services.knowledge.terms import key_of

AT_ONCE = 10_000
"""Characters that are indexed with the change itself: some 10 ms of work."""

_CHUNKS_AT_ONCE = 200
"""The same of chunks that go; each has about a hundred postings."""

_STEP = 8  # chunks
_CLEARED = 50  # chunks
_MOST_COUNTED = 2**15 - 1

_POSTINGS: Table = Posting.__table__  # type: ignore[assignment]  # a mapped class's Table


def cut(title: str, text: str) -> list[Piece] | None:
    """The pieces of a text that is indexed at once; None where a job has to do it.

    It takes no session: best done before a transaction begins for which others wait.
    """
    return list(pieces(title, text, [])) if len(text) <= AT_ONCE else None


async def take_in(
    session: AsyncSession,
    document: ProjectDocument,
    text: str,
    found: Sequence[Piece] | None = None,
) -> None:
    """Give a document, a new or a locked one, its text, and see that it is found.

    `found` is what `cut` made of it, where that was done before.
    """
    document.text = text
    # A job that is at work on what was there before ends.
    document.version = (document.version or 0) + 1
    document.characters, document.indexed = len(text), 0
    document.tokens = estimate_tokens(text)
    had, document.chunks, document.terms = document.chunks or 0, 0, 0
    document.state = "pending"
    await session.flush()
    if len(text) > AT_ONCE or had > _CHUNKS_AT_ONCE:
        jobs.enqueue(session, "knowledge.index", document_id=str(document.id))
        return
    if had:
        await session.execute(delete(Chunk).where(Chunk.document_id == document.id))
    if found is None:
        found = list(pieces(document.title, text, document.pages))
    document.terms = await _store(session, document, found)
    document.chunks, document.indexed = len(found), len(text)
    document.state = "ready"
    await session.flush()


async def remove(session: AsyncSession, document: ProjectDocument) -> None:
    """Nobody finds it from here on; a job takes a large one out of the index."""
    if document.chunks <= _CHUNKS_AT_ONCE:
        await session.execute(
            delete(ProjectDocument).where(ProjectDocument.id == document.id)
        )
        return
    document.state = "deleted"
    document.version += 1
    jobs.enqueue(session, "knowledge.remove", document_id=str(document.id))
    await session.flush()


class Indexing:
    """The jobs of this process: one of them works at a time, the others rest."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._working = asyncio.Lock()

    async def index(self, document_id: UUID) -> None:
        """Index a document from its beginning, unless it is ready or gone."""
        document = await self._take(document_id)
        if document is None:
            return
        try:
            if not await self._clear(document):
                return
            async for batch in self._batches(document):
                if not await self._add(document, batch):
                    return
            await self._change(document, state="ready")
        except (AppError, SQLAlchemyError):
            with suppress(AppError, SQLAlchemyError):
                await self._change(document, state="failed")
            raise  # the job is tried again

    async def remove(self, document_id: UUID) -> None:
        """Delete a document, however large, in small steps."""
        while await self._clear_some(document_id) == _CLEARED:
            pass
        async with self._database.unit_of_work() as session:
            await session.execute(
                delete(ProjectDocument).where(ProjectDocument.id == document_id)
            )

    async def remove_all(self, project_id: UUID) -> None:
        """Delete every document of a project."""
        async with self._database.unit_of_work(read_only=True) as session:
            ids = await session.scalars(
                select(ProjectDocument.id).where(
                    ProjectDocument.project_id == project_id
                )
            )
            found = ids.all()
        for document_id in found:
            await self.remove(document_id)

    async def _take(self, document_id: UUID) -> ProjectDocument | None:
        async with self._database.unit_of_work() as session:
            document = await session.get(
                ProjectDocument,
                document_id,
                options=[undefer(ProjectDocument.text)],
                with_for_update=True,
            )
            if document is None or document.state in {"ready", "deleted"}:
                return None
            document.version += 1
            document.state = "indexing"
            document.indexed = document.chunks = document.terms = 0
            return document

    async def _clear(self, document: ProjectDocument) -> bool:
        """False where the document is gone, or was taken up anew."""
        cleared = _CLEARED
        while cleared == _CLEARED:
            cleared = await self._clear_some(document.id, only_for=document)
        return cleared >= 0

    async def _clear_some(
        self, document_id: UUID, *, only_for: ProjectDocument | None = None
    ) -> int:
        """How many chunks went; -1 where others have taken the document up anew."""
        some = select(Chunk.id).where(Chunk.document_id == document_id).limit(_CLEARED)
        async with self._working:
            begun = perf_counter()
            async with self._database.unit_of_work() as session:
                if only_for is not None and not await _update(session, only_for):
                    return -1
                done = await session.execute(delete(Chunk).where(Chunk.id.in_(some)))
            await asyncio.sleep(perf_counter() - begun)
        return changed_rows(done)

    async def _batches(self, document: ProjectDocument) -> AsyncIterator[list[Piece]]:
        """The pieces of a document; each, and all that is done with a batch, rests."""
        found = pieces(document.title, document.text, document.pages)
        batch: list[Piece] = []
        while True:
            async with self._working:
                begun = perf_counter()
                piece = next(found, None)
                await asyncio.sleep(perf_counter() - begun)
            if piece is not None:
                batch.append(piece)
            if batch and (piece is None or len(batch) == _STEP):
                async with self._working:
                    begun = perf_counter()
                    yield batch
                    await asyncio.sleep(perf_counter() - begun)
                batch = []
            if piece is None:
                return

    async def _add(self, document: ProjectDocument, batch: Sequence[Piece]) -> bool:
        """False where the document is gone, or was taken up anew."""
        async with self._database.unit_of_work() as session:
            added = sum(piece.terms.total() for piece in batch)
            ours = await _update(
                session,
                document,
                indexed=batch[-1].passage.end,
                chunks=ProjectDocument.chunks + len(batch),
                terms=ProjectDocument.terms + added,
            )
            if ours:
                await _store(session, document, batch)
        return ours

    async def _change(self, document: ProjectDocument, *, state: str) -> None:
        async with self._database.unit_of_work() as session:
            await _update(session, document, state=state)


async def _update(
    session: AsyncSession, document: ProjectDocument, **changes: object
) -> bool:
    """Unless somebody else took the document up meanwhile."""
    done = await session.execute(
        update(ProjectDocument)
        .where(
            ProjectDocument.id == document.id,
            ProjectDocument.version == document.version,
        )
        # `updated_at` is when people changed it.
        .values(updated_at=ProjectDocument.updated_at, **changes)
        .execution_options(synchronize_session=False)
    )
    return changed_rows(done) == 1


async def _store(
    session: AsyncSession, document: ProjectDocument, batch: Sequence[Piece]
) -> int:
    """Write chunks and their postings; gives the number of their terms."""
    if not batch:
        return 0
    ids = await session.scalars(
        insert(Chunk).returning(Chunk.id, sort_by_parameter_order=True),
        [
            {
                "document_id": document.id,
                "start": piece.passage.start,
                "end": piece.passage.end,
                "page": piece.page,
                "lead": piece.passage.lead,
                "text": piece.passage.text,
            }
            for piece in batch
        ],
    )
    rows = [
        {
            "key": key_of(document.project_id, term),
            "chunk_id": chunk_id,
            "count": min(count, _MOST_COUNTED),
            "length": piece.terms.total(),
        }
        for chunk_id, piece in zip(ids.all(), batch, strict=True)
        for term, count in piece.terms.items()
    ]
    # Side by side in the index, and in one order whoever writes.
    rows.sort(key=lambda row: row["key"])
    if rows:
        await (await session.connection()).execute(insert(_POSTINGS), rows)
    return sum(piece.terms.total() for piece in batch)
