"""Bring the schema up to date, once, whichever of several starting servers does it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text

from alembic import command
from app.core.config import ROOT, Settings
from app.core.database import Database

T = TypeVar("T")

_LOCK = 7_303_014_551  # any number of our own, the same in every process


class MigrationError(Exception):
    """The schema cannot be brought to this version's; the text says why."""


def alembic_config(connection: Connection | None = None) -> Config:
    config = Config(ROOT / "alembic.ini")
    config.attributes["connection"] = connection
    return config


def run_with_connection(settings: Settings, work: Callable[[Connection], T]) -> T:
    """Run `work` in one transaction that no other migrating process can share."""
    return asyncio.run(_run(settings, work))


async def _run(settings: Settings, work: Callable[[Connection], T]) -> T:
    database = Database(settings, patient=True)
    try:
        async with database.engine.connect() as connection:
            result = await connection.run_sync(_locked, work)
            await connection.commit()
            return result
    finally:
        await database.close()


def _locked(connection: Connection, work: Callable[[Connection], T]) -> T:
    if connection.dialect.name == "sqlite":
        # Rebuilding a table (SQLite's way to alter one) would cascade into others.
        # Before the first statement of ours, so outside of any transaction.
        connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
    else:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    return work(connection)


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Migrate up to `revision`; raises MigrationError on a schema from the future."""

    def work(connection: Connection) -> None:
        config = alembic_config(connection)
        script = ScriptDirectory.from_config(config)
        current = MigrationContext.configure(connection).get_current_heads()
        if current == tuple(script.get_heads()) and revision == "head":
            return
        for head in current:
            _require_known(script, head)
        command.upgrade(config, revision)

    run_with_connection(settings, work)


def downgrade(settings: Settings, revision: str) -> None:
    run_with_connection(
        settings,
        lambda connection: command.downgrade(alembic_config(connection), revision),
    )


def _require_known(script: ScriptDirectory, revision: str) -> None:
    known = None
    with suppress(CommandError):
        known = script.get_revision(revision)
    if known is None:
        raise MigrationError(
            f"the database's schema is at revision {revision}, which this version of "
            "Workroom does not know: start the newer version again, or restore a backup"
        )
