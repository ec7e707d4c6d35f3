"""Passages as vectors, and those that are nearest to a question.

The database keeps them; those of the documents that were searched last are kept in
memory besides, so that a search multiplies numbers and reads nothing. Why there is no
index of vectors: docs/adr/0026-vectors-are-searched-in-memory.md.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from sqlalchemy import select

from app.core.database import Database
from app.models import Chunk, ChunkVector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_BYTES = 256 * 2**20
"""Kept in a process: the vectors of 65,000 passages, of 1024 numbers each."""

_KEPT_SECONDS = 300.0
"""What nobody has searched for so long is forgotten: it may have been deleted."""

_AT_ONCE = 2000
"""Passages that are loaded by one statement, unless one document has more."""

_NUMBER = "<f4"


class Held(NamedTuple):
    """A document's vectors, as they are: any change of them changes one of these."""

    document_id: UUID
    version: int
    embedder: str
    embedded: int


class _Matrix(NamedTuple):
    """A document's vectors, and the chunks whose they are."""

    chunks: "NDArray[np.int64]"
    rows: "NDArray[np.float32]"


_Key = tuple[Held, int]
"""And how many bytes a vector has: those of another length cannot be compared."""


def packed(vector: Sequence[float]) -> bytes:
    """As the database keeps it: of length 1, 4 bytes a number."""
    import numpy as np  # noqa: PLC0415 - 25 MB that go without where nothing is embedded

    numbers = np.asarray(vector, dtype=np.float64)
    length = np.linalg.norm(numbers)
    return (numbers / length if length else numbers).astype(_NUMBER).tobytes()


class Vectors:
    """Those of this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: OrderedDict[_Key, tuple[float, _Matrix]] = OrderedDict()
        self._bytes = 0
        self._loading = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None

    async def nearest(
        self, documents: Iterable[Held], question: bytes, *, count: int
    ) -> list[int]:
        """The chunks that are most like the question, the best first."""
        best: list[tuple[int, float]] = []
        for some in _batches(documents):
            matrices = await self._of([(one, len(question)) for one in some])
            best += await asyncio.to_thread(_nearest, matrices, question, count)
            best = sorted(best, key=lambda one: (-one[1], one[0]))[:count]
        return [chunk for chunk, _ in best]

    async def _of(self, keys: Sequence[_Key]) -> list[_Matrix]:
        found = self._find(keys)
        if len(found) < len(keys):
            async with self._loading:
                # Whoever was before us may have loaded the same.
                found |= self._find([key for key in keys if key not in found])
                found |= await self._load([key for key in keys if key not in found])
        return list(found.values())

    def _find(self, keys: Iterable[_Key]) -> dict[_Key, _Matrix]:
        found = {}
        now = time.monotonic()
        for key in keys:
            if key in self._kept:
                _, found[key] = self._kept[key]
                self._kept[key] = now, found[key]
                self._kept.move_to_end(key)
        return found

    async def _load(self, keys: Sequence[_Key]) -> dict[_Key, _Matrix]:
        by_id = {document.document_id: (document, size) for document, size in keys}
        if not by_id:
            return {}
        vectors = (
            select(Chunk.document_id, Chunk.id, ChunkVector.vector)
            .join(ChunkVector, ChunkVector.chunk_id == Chunk.id)
            .where(Chunk.document_id.in_(by_id))
            .order_by(Chunk.id)
        )
        rows: dict[UUID, list[tuple[int, bytes]]] = {key: [] for key in by_id}
        async with self._database.unit_of_work(read_only=True) as session:
            for document_id, chunk_id, vector in await session.execute(vectors):
                if len(vector) == by_id[document_id][1]:
                    rows[document_id].append((chunk_id, vector))
        loaded = {by_id[key]: _matrix(rows[key], by_id[key][1]) for key in by_id}
        self._keep(loaded)
        return loaded

    def _keep(self, loaded: dict[_Key, _Matrix]) -> None:
        now = time.monotonic()
        for key, matrix in loaded.items():
            self._kept[key] = now, matrix
            self._bytes += matrix.rows.nbytes
        while self._bytes > _MOST_BYTES:
            self._forget_oldest()
        self._forget_in_time()

    def _forget_oldest(self) -> None:
        _, (_, matrix) = self._kept.popitem(last=False)
        self._bytes -= matrix.rows.nbytes

    def _forget_in_time(self) -> None:
        """What is due, and see that this is done again while something is kept."""
        due = time.monotonic() - _KEPT_SECONDS
        while self._kept and next(iter(self._kept.values()))[0] <= due:
            self._forget_oldest()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._kept:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_KEPT_SECONDS / 10, self._forget_in_time)


def _batches(documents: Iterable[Held]) -> Iterator[list[Held]]:
    batch: list[Held] = []
    held = 0
    for one in documents:
        if batch and held + one.embedded > _AT_ONCE:
            yield batch
            batch, held = [], 0
        batch.append(one)
        held += one.embedded
    if batch:
        yield batch


def _matrix(rows: Sequence[tuple[int, bytes]], size: int) -> _Matrix:
    import numpy as np  # noqa: PLC0415 - see `packed`

    numbers = np.frombuffer(b"".join(vector for _, vector in rows), dtype=_NUMBER)
    chunks = np.array([chunk for chunk, _ in rows], dtype=np.int64)
    width = size // numbers.itemsize
    return _Matrix(chunks, numbers.reshape(len(rows), width))


def _nearest(
    matrices: Sequence[_Matrix], question: bytes, count: int
) -> list[tuple[int, float]]:
    """The most alike of them, in no order, and how alike they are: -1 to 1."""
    import numpy as np  # noqa: PLC0415 - see `packed`

    asked = np.frombuffer(question, dtype=_NUMBER)
    alike = np.concatenate([matrix.rows @ asked for matrix in matrices])
    chunks = np.concatenate([matrix.chunks for matrix in matrices])
    if len(alike) > count:
        chosen = np.argpartition(-alike, count)[:count]
        alike, chunks = alike[chosen], chunks[chosen]
    return list(zip(chunks.tolist(), alike.tolist(), strict=True))
