"""How documents come into the index, and out of it.

A request only stores a text; a job indexes it, which begins as soon as that is stored.
It works in steps of a few milliseconds and rests after each for longer than the step
took, so that what others wait for, a reply above all, comes in between. The busier the
machine, the longer the steps take, and so the rests.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    SmallInteger,
    Table,
    bindparam,
    cast,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import Database
from app.core.exceptions import AppError
from app.core.statements import Script, Statement
from app.integrations.llm.tokens import estimate_tokens
from app.integrations.search.passages import Document
from app.models import Chunk, Posting, ProjectDocument
from app.services import job as jobs
from app.services.knowledge.chunking import Piece, pieces
from app.services.knowledge.terms import key_of

REST = 3.0
"""How long a rest is beside the step before it."""

_STEP = 4  # chunks that are stored at once: a transaction of some 5 ms
_CLEARED = 10  # chunks that are taken out at once; each has about a hundred postings
_MOST_COUNTED = 2**15 - 1


async def take_in(session: AsyncSession, document: ProjectDocument, text: str) -> None:
    """Give a document, a new or a locked one, its text; a job sees that it is found."""
    document.text = text
    # A job that is at work on what was there before ends.
    document.version = (document.version or 0) + 1
    document.characters, document.indexed = len(text), 0
    document.tokens = estimate_tokens(text)
    document.embedder, document.embedded = None, 0
    document.state = "pending"
    await session.flush()
    jobs.enqueue(session, "knowledge.index", document_id=str(document.id))


async def remove(session: AsyncSession, document: ProjectDocument) -> None:
    """Nobody finds it from here on; a job takes a large one out of the index."""
    if document.chunks <= _CLEARED:
        await session.execute(
            delete(ProjectDocument).where(ProjectDocument.id == document.id)
        )
        return
    document.state = "deleted"
    document.version += 1
    jobs.enqueue(session, "knowledge.remove", document_id=str(document.id))
    await session.flush()


async def index_at_once(
    database: Database, document_id: UUID, project_id: UUID, text: Document
) -> None:
    """Index a short document in one transaction, for somebody waits for it.

    Whoever does the same at the same time waits, and has nothing left to do.
    """

    def cut() -> list[_Row]:
        return [_row(project_id, piece) for piece in pieces(text.source, text.text, ())]

    await database.transact(_all_at_once(document_id, await asyncio.to_thread(cut)))


class Taken(NamedTuple):
    """A document as a job took it up: it has `chunks` of what was there before."""

    id: UUID
    project_id: UUID
    version: int
    title: str
    text: str
    pages: list[int]
    chunks: int


class _Row(NamedTuple):
    """A chunk as it is stored; `counts` are those of its terms, by their keys."""

    piece: Piece
    counts: Mapping[str, int]


class Indexing:
    """The jobs of this process: one of them works at a time, the others rest."""

    def __init__(
        self, database: Database, *, rest: float = REST, embedder: str = ""
    ) -> None:
        """`embedder` is the model that makes vectors then, where there is one."""
        self._database = database
        self._embedder = embedder
        self._rest = rest
        self._working = asyncio.Lock()

    async def index(self, document_id: UUID) -> None:
        """Index a document from its beginning, unless it is ready or gone."""
        document = await self._take(document_id)
        if document is None:
            return
        try:
            if not await self._clear(document):
                return
            async for batch, last in self._batches(document):
                state = "ready" if last else "indexing"
                if not await self._add(document, batch, state=state):
                    return
        except (AppError, SQLAlchemyError):
            with suppress(AppError, SQLAlchemyError):
                await self._fail(document)
            raise  # the job is tried again

    async def remove(self, document_id: UUID) -> None:
        """Delete a document, however large, in small steps."""
        cleared = _CLEARED
        while cleared == _CLEARED:
            async with self._step():
                cleared = (await self._database.run(_CLEAR(document=document_id)))[1]
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

    @asynccontextmanager
    async def _step(self) -> AsyncIterator[None]:
        async with self._working:
            begun = perf_counter()
            yield
            await asyncio.sleep(self._rest * (perf_counter() - begun))

    async def _take(self, document_id: UUID) -> Taken | None:
        async with self._step():
            found = await self._database.run(_TAKE(document=document_id))
        return Taken(**found.rows[0]) if found.rows else None

    async def _clear(self, document: Taken) -> bool:
        """False where the document is gone, or was taken up anew."""
        left = document.chunks
        while left > 0:
            async with self._step():
                cleared = await self._database.transact(_clearing(document))
            if cleared is None:
                return False
            left -= cleared
        return True

    async def _batches(
        self, document: Taken
    ) -> AsyncIterator[tuple[Sequence[_Row], bool]]:
        """What is stored at once, and whether it is the last of it."""
        found = pieces(document.title, document.text, document.pages)
        batch: list[_Row] = []
        while True:
            async with self._step():
                piece = next(found, None)
                row = _row(document.project_id, piece) if piece else None
            if row is None:
                yield batch, True
                return
            if len(batch) == _STEP:
                yield batch, False
                batch = []
            batch.append(row)

    async def _add(self, document: Taken, batch: Sequence[_Row], *, state: str) -> bool:
        """False where the document is gone, or was taken up anew."""
        async with self._step():
            added = await self._database.transact(
                _adding(document, batch, state, embedded=bool(self._embedder))
            )
        if state == "ready" and self._embedder:
            jobs.wake_workers()
        return added

    async def _fail(self, document: Taken) -> None:
        await self._database.run(_FAIL(document=document.id, taken=document.version))


def _row(project_id: UUID, piece: Piece) -> _Row:
    counts = {
        str(key_of(project_id, term)): min(count, _MOST_COUNTED)
        for term, count in piece.terms.items()
    }
    # Side by side in the index, and in one order whoever writes.
    return _Row(piece, dict(sorted(counts.items(), key=lambda pair: int(pair[0]))))


def _all_at_once(document_id: UUID, rows: Sequence[_Row]) -> Script[None]:
    taken = yield _TAKE(document=document_id)
    if taken.rows:
        document = Taken(**taken.rows[0])
        yield from _adding(document, rows, "ready", embedded=False)


def _adding(
    document: Taken, batch: Sequence[_Row], state: str, *, embedded: bool
) -> Script[bool]:
    """Store chunks and their postings, unless somebody else took the document up."""
    done = yield _ADVANCE(
        document=document.id,
        taken=document.version,
        to_state=state,
        to_indexed=batch[-1].piece.passage.end if batch else 0,
        more_chunks=len(batch),
        more_terms=sum(row.piece.terms.total() for row in batch),
    )
    if not done.rowcount:
        return False
    for piece, counts in batch:
        passage = piece.passage
        added = yield _ADD_CHUNK(
            document=document.id,
            first=passage.start,
            last=passage.end,
            on_page=piece.page,
            its_lead=passage.lead,
            its_text=passage.text,
        )
        yield _ADD_POSTINGS(
            chunk=added.rows[0]["id"], counts=counts, terms=piece.terms.total()
        )
    if embedded and state == "ready":
        yield jobs.adding("knowledge.embed", document_id=str(document.id))
    return True


def _clearing(document: Taken) -> Script[int | None]:
    """Take some chunks out; gives how many, None where somebody else took it up."""
    advance = {"document": document.id, "taken": document.version}
    advance |= {"to_state": "indexing", "to_indexed": 0, "more_terms": 0}
    locked = yield _ADVANCE(**advance, more_chunks=0)
    if not locked.rowcount:
        return None
    cleared = (yield _CLEAR(document=document.id)).rowcount
    yield _ADVANCE(**advance, more_chunks=-cleared)
    return cleared


_DOCUMENTS: Table = ProjectDocument.__table__  # type: ignore[assignment]  # a mapped class's Table
_CHUNKS: Table = Chunk.__table__  # type: ignore[assignment]  # the same
_POSTINGS: Table = Posting.__table__  # type: ignore[assignment]  # the same

# `updated_at` is when people changed it, so it stays what it is.
_TAKE = Statement(
    update(_DOCUMENTS)
    .where(
        _DOCUMENTS.c.id == bindparam("document"),
        _DOCUMENTS.c.state.not_in(("ready", "deleted")),
    )
    .values(
        version=_DOCUMENTS.c.version + 1,
        state="indexing",
        indexed=0,
        terms=0,
        updated_at=_DOCUMENTS.c.updated_at,
    )
    .returning(*(_DOCUMENTS.c[name] for name in Taken._fields))
)
_TAKEN = update(_DOCUMENTS).where(
    _DOCUMENTS.c.id == bindparam("document"),
    _DOCUMENTS.c.version == bindparam("taken"),
)
_ADVANCE = Statement(
    _TAKEN.values(
        state=bindparam("to_state"),
        indexed=bindparam("to_indexed"),
        chunks=_DOCUMENTS.c.chunks + bindparam("more_chunks"),
        terms=_DOCUMENTS.c.terms + bindparam("more_terms"),
        updated_at=_DOCUMENTS.c.updated_at,
    )
)
_FAIL = Statement(_TAKEN.values(state="failed", updated_at=_DOCUMENTS.c.updated_at))
_CLEAR = Statement(
    delete(_CHUNKS).where(
        _CHUNKS.c.id.in_(
            select(_CHUNKS.c.id)
            .where(_CHUNKS.c.document_id == bindparam("document"))
            .limit(_CLEARED)
        )
    )
)
_ADD_CHUNK = Statement(
    insert(_CHUNKS)
    .values(
        document_id=bindparam("document"),
        start=bindparam("first"),
        end=bindparam("last"),
        page=bindparam("on_page"),
        lead=bindparam("its_lead"),
        text=bindparam("its_text"),
    )
    .returning(_CHUNKS.c.id)
)


def _add_postings(pairs: Any) -> Any:
    """All of a chunk's in one statement: `pairs` are its terms' keys and counts."""
    listed = pairs.table_valued("key", "value")
    return insert(_POSTINGS).from_select(
        ["key", "chunk_id", "count", "length"],
        select(
            cast(listed.c.key, BigInteger),
            bindparam("chunk", type_=BigInteger()),
            cast(listed.c.value, SmallInteger),
            bindparam("terms", type_=_POSTINGS.c.length.type),
        ),
    )


_ADD_POSTINGS = Statement(
    _add_postings(func.json_each(bindparam("counts", type_=JSON()))),
    postgresql=_add_postings(func.jsonb_each_text(bindparam("counts", type_=JSONB()))),
)
