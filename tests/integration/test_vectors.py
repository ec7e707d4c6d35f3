"""The nearest vectors, over documents that are loaded and kept."""

from uuid import UUID

import pytest

from app.core.database import Database
from app.models import Chunk, ChunkVector, ProjectDocument
from app.services.knowledge import vectors as vectors_module
from app.services.knowledge.vectors import Held, Vectors, packed
from tests.integration.test_knowledge import a_project


async def stored(
    database: Database, project: UUID, vectors: list[list[float]]
) -> tuple[Held, list[int]]:
    """A document with a chunk for each vector, and the numbers of these."""
    async with database.unit_of_work() as session:
        document = ProjectDocument(
            project_id=project,
            title="A note",
            state="ready",
            characters=1,
            tokens=1,
            text="",
            embedder="m",
            embedded=len(vectors),
        )
        session.add(document)
        await session.flush()
        chunks = [
            Chunk(document_id=document.id, start=0, end=1, lead="", text="x")
            for _ in vectors
        ]
        session.add_all(chunks)
        await session.flush()
        ids = [chunk.id for chunk in chunks]
        pairs = zip(ids, vectors, strict=True)
        session.add_all(
            ChunkVector(chunk_id=chunk, vector=packed(vector))
            for chunk, vector in pairs
        )
    return Held(document.id, 1, "m", len(vectors)), ids


async def test_the_nearest_are_found_over_all_documents(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors_module, "_AT_ONCE", 3)
    shelf = await a_project(database)
    first, (a, b) = await stored(database, shelf, [[1.0, 0.0], [0.0, 5.0]])
    second, (c, d) = await stored(database, shelf, [[3.0, 1.0], [-1.0, 0.0]])
    # One that another server made of other numbers, and one of nothing.
    third, (_, e) = await stored(database, shelf, [[1.0, 0.0, 0.0], [0.0, 0.0]])
    vectors = Vectors(database)

    for _ in range(2):  # from the database, and from memory
        near = await vectors.nearest(
            [first, second, third], packed([9.0, 0.0]), count=9
        )
        assert near == [a, c, b, e, d]
    assert await vectors.nearest([first, second], packed([1.0, 0.0]), count=2) == [a, c]


async def test_memory_has_a_limit_and_forgets(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors_module, "_MOST_BYTES", 20)
    shelf = await a_project(database)
    documents = [(await stored(database, shelf, [[1.0, 0.0]]))[0] for _ in range(4)]
    vectors = Vectors(database)

    near = await vectors.nearest(documents, packed([1.0, 0.0]), count=9)

    assert len(near) == 4
    assert vectors._bytes == 16  # two vectors of two numbers
    monkeypatch.setattr(vectors_module, "_KEPT_SECONDS", 0)
    vectors._forget_in_time()
    assert vectors._bytes == 0
    assert vectors._timer is None
