"""What a project's passages and questions mean, as vectors of the installation's model.

A document is found by its words before it has vectors, and all the same where the model
fails: nothing here raises what a search or a job would have to answer for.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.cache import Cache
from app.core.database import Database, changed_rows
from app.core.exceptions import AppError
from app.integrations.llm.embeddings import EmbedRequest, InputType, estimate_inputs
from app.integrations.llm.routes import as_one
from app.integrations.llm.routing import Router
from app.models import (
    Chunk,
    ChunkVector,
    KeyLimits,
    Project,
    ProjectDocument,
    User,
)
from app.services.authorization import owned
from app.services.chat.books import Books
from app.services.embedding import BYTES_A_TOKEN, cut, embedded
from app.services.knowledge import manual
from app.services.knowledge.asking import Asking, is_away
from app.services.knowledge.search import MOST_CHARACTERS
from app.services.knowledge.vectors import Held, Vectors, packed

_NEAREST = 300
"""Chunks that are ranked by what they mean: as many as by their words."""

_REMEMBERED, _REMEMBER_SECONDS = 500, 300.0
"""Questions: a turn asks what its preview did, and a search is scrolled through."""

_BATCH = 64  # passages: 256 KiB of vectors
_MOST_DOCUMENTS = 50_000

_SPELL_SECONDS = 540.0
"""Of `embed_missing`, which is begun anew every 600."""

_log = structlog.get_logger()


class _Batch(NamedTuple):
    """Chunks that lack a vector, of a document as it was then."""

    document: Held
    owner_id: UUID
    chunks: Sequence[int]
    texts: Sequence[str]


class Embedding:
    """`model` is empty where the installation embeds nothing."""

    def __init__(
        self, model: str, *, database: Database, router: Router, books: Books
    ) -> None:
        self.model = model
        self._database = database
        self._router = router
        self._books = books
        self._vectors = Vectors(database)
        # By who asks: whoever asks first pays, and nobody learns that others did.
        self._questions: Cache[tuple[UUID, str], bytes] = Cache(
            size=_REMEMBERED, ttl=lambda: _REMEMBER_SECONDS
        )
        self._asking = Asking(model, without="searched by words alone")
        # One batch at a time: two jobs would pay for the same.
        self._working = asyncio.Lock()

    # Searching

    async def near(
        self,
        user_id: UUID,
        project_id: UUID,
        query: str,
        *,
        key: KeyLimits | None,
    ) -> list[int]:
        """The chunks of a project that mean most nearly what is asked, best first.

        The question is one call of the model, which the user pays, within the limits of
        the `key` by which they ask. There are none where nothing is embedded, the user
        is not in the project, or the model does not answer in time.
        """
        query = query[:MOST_CHARACTERS].strip()
        documents = await self._held(user_id, project_id) if query else []
        if not documents:
            return []
        question = await self._question(user_id, query, key)
        if question is None:
            return []
        return await self._vectors.nearest(documents, question, count=_NEAREST)

    async def _held(self, user_id: UUID, project_id: UUID) -> list[Held]:
        """What can be searched, of what the user may see."""
        if not self.model:
            return []
        documents = select(*_HELD).where(
            ProjectDocument.project_id == project_id,
            owned(ProjectDocument, user_id),
            ProjectDocument.state == "ready",
            ProjectDocument.embedder == self.model,
            ProjectDocument.embedded > 0,
        )
        async with self._database.unit_of_work(read_only=True) as session:
            found = await session.execute(documents.order_by(ProjectDocument.id))
            return [
                Held(key, version, self.model, count) for key, version, count in found
            ]

    async def _question(
        self, user_id: UUID, query: str, key: KeyLimits | None
    ) -> bytes | None:
        known = self._questions.find((user_id, query))
        if known is not None:
            return known

        async def ask() -> bytes:
            (vector,) = await self._embedded(user_id, [query], "query", key=key)
            return vector

        return await self._asking.answer(
            lambda: self._questions.get((user_id, query), ask)
        )

    # The index

    async def embed(self, document_id: UUID) -> None:
        """Make the vectors that a document lacks, unless it is not ready or gone.

        What fails is left to `embed_missing`.
        """
        try:
            await self._embed(document_id)
        except AppError as error:
            self._tell(document_id, error)

    async def embed_missing(self) -> None:
        """The same for all documents, as far as that comes in some minutes.

        They lack vectors where the model failed, was another one, or was none.
        """
        until = time.monotonic() + _SPELL_SECONDS
        for document_id in await self._lacking():
            if time.monotonic() > until:
                return
            try:
                await self._embed(document_id)
            except AppError as error:
                self._tell(document_id, error)
                if is_away(error):
                    return

    def _tell(self, document_id: UUID, error: AppError) -> None:
        told = {"document_id": str(document_id), "model": self.model}
        _log.warning("document not embedded", **told, code=error.code)

    async def _lacking(self) -> Sequence[UUID]:
        if not self.model:
            return []
        lacking = select(ProjectDocument.id).where(
            ProjectDocument.project_id != manual.PROJECT,  # nobody is there to pay
            ProjectDocument.state == "ready",
            or_(
                ProjectDocument.embedder.is_distinct_from(self.model),
                ProjectDocument.embedded < ProjectDocument.chunks,
            ),
        )
        async with self._database.unit_of_work(read_only=True) as session:
            return (await session.scalars(lacking.limit(_MOST_DOCUMENTS))).all()

    async def _embed(self, document_id: UUID) -> None:
        if not self.model:
            return
        await self._take(document_id)
        more = True
        while more:
            async with self._working:
                more = await self._next(document_id)

    async def _next(self, document_id: UUID) -> bool:
        """False where nothing is left to do, or others do it."""
        batch = await self._batch(document_id)
        if batch is None:
            return False
        made = await self._embedded(batch.owner_id, batch.texts, "document")
        return await self._store(batch, made)

    async def _take(self, document_id: UUID) -> None:
        """Drop the vectors that another model made."""
        async with self._database.unit_of_work() as session:
            done = await session.execute(
                update(ProjectDocument)
                .where(
                    ProjectDocument.id == document_id,
                    ProjectDocument.state == "ready",
                    ProjectDocument.embedder.is_distinct_from(self.model),
                )
                .values(
                    embedder=self.model,
                    embedded=0,
                    updated_at=ProjectDocument.updated_at,
                )
                .execution_options(synchronize_session=False)
            )
            if changed_rows(done):
                chunks = select(Chunk.id).where(Chunk.document_id == document_id)
                await session.execute(
                    delete(ChunkVector)
                    .where(ChunkVector.chunk_id.in_(chunks))
                    .execution_options(synchronize_session=False)
                )

    async def _batch(self, document_id: UUID) -> _Batch | None:
        async with self._database.unit_of_work(read_only=True) as session:
            found = await session.execute(
                select(*_HELD, ProjectDocument.title, User.id)
                .join(Project, Project.id == ProjectDocument.project_id)
                .join(User, User.id == Project.user_id)
                .where(
                    User.status != "deleted",
                    Project.deleted.is_(False),
                    ProjectDocument.id == document_id,
                    ProjectDocument.state == "ready",
                    ProjectDocument.embedder == self.model,
                )
            )
            row = found.one_or_none()
            if row is None:
                return None
            key, version, count, title, owner_id = row
            chunks = await _without_vectors(session, document_id)
        if not chunks:
            return None
        texts = [
            "\n".join(filter(None, (title, lead, text))) for _, lead, text in chunks
        ]
        held = Held(key, version, self.model, count)
        return _Batch(held, owner_id, [chunk for chunk, _, _ in chunks], texts)

    async def _store(self, batch: _Batch, vectors: Sequence[bytes]) -> bool:
        """False where the document is no longer as it was when the batch was read."""
        was = batch.document
        async with self._database.unit_of_work() as session:
            done = await session.execute(
                update(ProjectDocument)
                .where(
                    ProjectDocument.id == was.document_id,
                    ProjectDocument.version == was.version,
                    ProjectDocument.embedder == was.embedder,
                    ProjectDocument.embedded == was.embedded,
                )
                .values(
                    embedded=was.embedded + len(vectors),
                    updated_at=ProjectDocument.updated_at,
                )
                .execution_options(synchronize_session=False)
            )
            if not changed_rows(done):
                return False
            pairs = zip(batch.chunks, vectors, strict=True)
            await session.execute(
                insert(ChunkVector),
                [{"chunk_id": chunk, "vector": vector} for chunk, vector in pairs],
            )
        return True

    # The model

    async def _embedded(
        self,
        user_id: UUID,
        texts: Sequence[str],
        kind: InputType,
        *,
        key: KeyLimits | None = None,
    ) -> list[bytes]:
        """Of each text; the user pays. Raises AppError, as `Books.reserve` does."""
        candidates = await self._router.candidates(self.model, able="embeddings")
        most = min(one.model.context_window for one in candidates) * BYTES_A_TOKEN
        request = EmbedRequest(
            self.model, [cut(text, most) for text in texts], input_type=kind
        )
        tokens = estimate_inputs(request)
        account = await self._books.reserve(
            user_id,
            as_one(self.model, [one.model for one in candidates]),
            kind="knowledge",
            input_tokens=tokens,
            output_tokens=0,
            key=key,
            asked=self.model,
        )
        made = await embedded(self._router, account, candidates, request, tokens=tokens)
        # In a thread, for the first time it loads a library.
        return await asyncio.to_thread(list, map(packed, made.vectors))


async def _without_vectors(
    session: AsyncSession, document_id: UUID
) -> Sequence[tuple[int, str, str]]:
    found = await session.execute(
        select(Chunk.id, Chunk.lead, Chunk.text)
        .outerjoin(ChunkVector, ChunkVector.chunk_id == Chunk.id)
        .where(Chunk.document_id == document_id, ChunkVector.chunk_id.is_(None))
        .order_by(Chunk.id)
        .limit(_BATCH)
    )
    return found.all()


_HELD = (
    ProjectDocument.id,
    ProjectDocument.version,
    ProjectDocument.embedded,
)
