"""In how many chunks a term is: what tells rare terms from frequent ones.

To count frequent terms is most of a search's work, so their counts are remembered for
some minutes: what is added or taken away meanwhile moves a large number little. Rare
terms are counted anew each time, for a text must be found by its own words at once.
"""

from collections.abc import Collection
from functools import cache
from typing import Any

from sqlalchemy import JSON, BigInteger, Select, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.cache import Cache
from app.models import Posting

MOST_HAVING = 2500
"""Chunks beyond which `few` counts no further, nor gives a number."""

_FREQUENT = 1000
"""Chunks from which on a count is remembered."""

_REMEMBERED, _REMEMBER_SECONDS = 50_000, 300.0


class Counts:
    """Of this process. The keys of terms tell projects apart."""

    def __init__(self) -> None:
        self._all: _Known = _known()
        self._few: _Known = _known()

    async def all(self, session: AsyncSession, keys: Collection[int]) -> dict[int, int]:
        """Of each of these terms; what no chunk has is left out."""
        return await _counted(session, _ALL, keys, self._all)

    async def few(self, session: AsyncSession, keys: Collection[int]) -> dict[int, int]:
        """The same of those terms that are in at most `MOST_HAVING` chunks."""
        counts = await _counted(session, _FEW, keys, self._few)
        return {key: count for key, count in counts.items() if count <= MOST_HAVING}


_Known = Cache[int, int]


def _known() -> _Known:
    return Cache(size=_REMEMBERED, ttl=lambda: _REMEMBER_SECONDS)


async def _counted(
    session: AsyncSession, kind: str, keys: Collection[int], known: _Known
) -> dict[int, int]:
    counts = {key: count for key in keys if (count := known.find(key))}
    asked = [key for key in keys if key not in counts]
    if asked:
        statement = _statement(kind, session.get_bind().dialect.name)
        for key, count in await session.execute(statement, {"keys": asked}):
            if count:
                counts[key] = count
            if count >= _FREQUENT:
                known.keep(key, count)
    return counts


_ALL, _FEW = "all", "few"


@cache
def _statement(kind: str, dialect: str) -> Select[int, int]:
    """The keys come in as one value, so that the SQL is the same at each call."""
    if dialect == "sqlite":
        keys = func.json_each(bindparam("keys", type_=JSON())).table_valued("value")
    else:
        listed = func.unnest(bindparam("keys", type_=ARRAY(BigInteger())))
        keys = listed.table_valued("value").render_derived()
    having = select(Posting.chunk_id).where(Posting.key == keys.c.value)
    if kind == _FEW:
        few = having.limit(MOST_HAVING + 1).correlate(keys).subquery()
        count: Any = select(func.count()).select_from(few)
    else:
        # Not of a subquery: SQLite takes twice as long for each row of that.
        count = having.with_only_columns(func.count()).correlate(keys)
    return select(keys.c.value, count.scalar_subquery())
