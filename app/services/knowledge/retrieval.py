"""The way of a question through all that finds passages: words, vectors, a reranker."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select

from app.core.database import Database
from app.models import KeyLimits, Project
from app.services.authorization import owned
from app.services.knowledge.counts import Counts
from app.services.knowledge.embedding import Embedding
from app.services.knowledge.reranking import Reranking
from app.services.knowledge.search import Found, search


class Retrieval:
    def __init__(
        self, database: Database, embedding: Embedding, reranking: Reranking
    ) -> None:
        self._database = database
        self._embedding = embedding
        self._reranking = reranking
        self._counts = Counts()

    async def find(
        self,
        user_id: UUID,
        project_id: UUID,
        query: str,
        *,
        limit: int,
        key: KeyLimits | None,
    ) -> Sequence[Found]:
        """The best passages, best first; none for who is not in the project.

        Models are asked where the installation has some, which the user pays, within
        the limits of the `key` by which they ask. Nothing of the database is held then.
        """
        near = await self._embedding.near(user_id, project_id, query, key=key)
        there = select(Project.id).where(
            Project.id == project_id, owned(Project, user_id)
        )
        async with self._database.unit_of_work(read_only=True) as session:
            if await session.scalar(there) is None:
                return []
            found = await search(
                session,
                project_id,
                query,
                limit=self._reranking.candidates(limit),
                counts=self._counts,
                near=near,
            )
        return await self._reranking.best(user_id, query, found, limit=limit, key=key)
