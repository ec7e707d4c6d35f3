"""Every sealed column, and how its texts come under a new key.

ENCRYPTION_KEY gets a new first key, and all processes a restart, so that each of them
reads both; then what the old key sealed is sealed anew, row by row while the servers
run; then the old key can go. Ended halfway, it goes on where it was: what is under the
new key already is left alone.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, bindparam, select, update

from app.core.crypto import Crypto, CryptoError
from app.core.database import Database
from app.models import Base
from app.models.base import Sealed
from app.services import audit

_BATCH = 500
_MOST_NAMED = 20


@dataclass(slots=True)
class Rotation:
    """What became of one column."""

    column: str
    rows: int = 0
    resealed: int = 0
    unreadable: int = 0
    first_unreadable: list[str] = field(default_factory=list)


def columns() -> list[Column[Any]]:
    """By table and name; each table has a primary key of one column."""
    return [
        column
        for _, table in sorted(Base.metadata.tables.items())
        for column in table.columns
        if isinstance(column.type, Sealed)
    ]


async def rotate(database: Database, crypto: Crypto) -> list[Rotation]:
    """Seal everything with the newest key; what does not open is left as it is."""
    rotations = [await _rotate(database, crypto, column) for column in columns()]
    # Where the audit's own key is not readable, its rotation says so already.
    with suppress(CryptoError):
        async with database.unit_of_work() as session:
            resealed = {r.column: r.resealed for r in rotations if r.resealed}
            await audit.record(session, audit.SYSTEM, "keys.rotate", after=resealed)
    return rotations


async def _rotate(database: Database, crypto: Crypto, column: Column[Any]) -> Rotation:
    (key,) = column.table.primary_key
    done = Rotation(f"{column.table.name}.{column.name}")
    statement = (
        select(key, column).where(column.is_not(None)).order_by(key).limit(_BATCH)
    )
    page = statement
    while True:
        async with database.unit_of_work(read_only=True) as session:
            rows = (await session.execute(page)).all()
        done.rows += len(rows)
        if changes := [
            {"row_id": row_id, "old": old, "new": new}
            for row_id, old in rows
            if (new := _reseal(crypto, old, f"{done.column}:{row_id}", done))
        ]:
            await _store(database, column, changes)
            done.resealed += len(changes)
        if len(rows) < _BATCH:
            return done
        page = statement.where(key > rows[-1][0])


def _reseal(crypto: Crypto, sealed: str, place: str, done: Rotation) -> str | None:
    if crypto.is_newest(sealed):
        return None
    try:
        return crypto.seal(crypto.open(sealed, place=place), place=place)
    except CryptoError as error:
        done.unreadable += 1
        if done.unreadable <= _MOST_NAMED:
            done.first_unreadable.append(str(error))
        return None


async def _store(
    database: Database, column: Column[Any], changes: list[dict[str, Any]]
) -> None:
    """Only over what was read: a server may have written something newer."""
    (key,) = column.table.primary_key
    async with database.unit_of_work() as session:
        connection = await session.connection()
        await connection.execute(
            update(column.table)
            .where(key == bindparam("row_id"), column == bindparam("old"))
            .values({column.name: bindparam("new")}),
            changes,
        )
