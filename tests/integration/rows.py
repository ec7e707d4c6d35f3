"""All that a database holds, to be compared and to be searched."""

import asyncio
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text

from app.core.database import Database, utcnow
from app.models import Base, Job
from app.services.knowledge.manual import PROJECT as MANUAL
from tests.conftest import Server

Rows = dict[tuple[Any, ...], dict[str, Any]]


async def settled(server: Server) -> None:
    """Wait until nothing is left to do now, and all that was used is written.

    A turn goes on when its reply is there: it still has its log to write, and that is
    stored a little later.
    """
    if turns := server.runtime.turns._tasks:
        await asyncio.wait(turns)
    logs = server.runtime.message_logs
    while logs._waiting:
        logs._room.clear()
        await logs._room.wait()  # for each batch that was stored
    await server.runtime.credits.flush()
    await server.runtime.search_index.settle()
    busy = select(func.count()).where(Job.state.in_(["queued", "running"]))
    while True:
        async with server.runtime.database.unit_of_work(read_only=True) as session:
            # By the time of now: a job that ends may have asked for another.
            if not await session.scalar(busy.where(Job.run_at <= utcnow())):
                return
        await asyncio.sleep(0.01)


async def stored(database: Database) -> Rows:
    """Every row of every table, by the table's name and the row's key."""
    rows: Rows = {}
    async with database.unit_of_work(read_only=True) as session:
        for name, table in Base.metadata.tables.items():
            for row in (await session.execute(select(table))).mappings():
                key = (row[column.name] for column in table.primary_key.columns)
                rows[name, *key] = dict(row)
    return rows


async def traces(database: Database, needles: Iterable[object]) -> set[str]:
    """Where, as `table.column`, any of the needles stands in whatever form.

    The manual, whose examples are about such people, is left out.
    """
    sought = [form for needle in needles for form in _forms(needle)]
    rows = await stored(database)
    manual = {row["id"] for row in rows.values() if row.get("project_id") == MANUAL}
    found = {
        f"{table}.{column}"
        for (table, *_), row in rows.items()
        if not manual & {row.get("id"), row.get("document_id")}
        for column, value in row.items()
        if any(form in _text(value) for form in sought)
    }
    if database.is_sqlite:
        return found | await _traces_in_index(database, sought)
    return found


def _forms(needle: object) -> set[str]:
    if isinstance(needle, UUID):
        return {str(needle), needle.hex, needle.bytes.decode("latin-1")}
    return {str(needle).casefold()}


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return str(value).casefold()


async def _traces_in_index(database: Database, sought: Iterable[str]) -> set[str]:
    """Words that SQLite's full-text index has rows for."""
    found = set()
    async with database.unit_of_work(read_only=True) as session:
        for word in (form for form in sought if form.isascii() and form.isalnum()):
            hits = await session.execute(
                text("SELECT rowid FROM search_index WHERE search_index MATCH :word"),
                {"word": f'"{word}"'},
            )
            if hits.first() is not None:
                found.add("search_index")
    return found
