"""Finding what a project's documents say, by words."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class Found:
    """A passage of a document: `text` equals its text from `start` to `end`.

    `page` is the one on which it starts, from 1, where the document has pages. A
    higher `score` is better; it compares within the answers to one query alone.
    """

    document_id: UUID
    title: str
    text: str
    start: int
    end: int
    page: int | None
    score: float


async def search(
    session: AsyncSession, project_id: UUID, query: str, *, limit: int
) -> list[Found]:
    """The best passages, best first. Who asks must be in the project: see `require`."""
    raise NotImplementedError
