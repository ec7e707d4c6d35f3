"""Servers and the schema they find (TRUST F8)."""

import asyncio
import sqlite3
from contextlib import closing

import asyncpg
import pytest

from tests.e2e.conftest import Begin, NewDatabase, create_database
from tests.e2e.processes import Server
from tests.e2e.reading import Reader

pytestmark = pytest.mark.asyncio(loop_scope="session")

NEWER = "29991231f00d"
MAKE_NEWER = "UPDATE alembic_version SET version_num = '29991231f00d'"


async def test_two_servers_that_start_together_migrate_once_and_both_serve(
    begin: Begin, postgres_url: str, redis_url: str
) -> None:
    """F8."""
    shared = {
        "DATABASE_URL": await create_database(postgres_url),
        "REDIS_URL": redis_url,
    }
    servers = [begin.prepared(**shared) for _ in range(2)]

    for server in servers:
        server.spawn()
    for server in servers:
        await server.ready()

    assert len(await revisions(servers[0])) == 1
    first, second = servers
    client = await first.client()
    elsewhere = second.as_before(client)
    chat = await client.chat(model="guide/manual", title="Named")
    for one in (client, elsewhere):
        reader = Reader(one)
        await reader.ask(chat, "How do I make a backup?")
        assert reader.message["status"] == "complete"
    assert len(await client.messages(chat)) == 4


async def test_a_second_start_finds_nothing_to_migrate(server: Server) -> None:
    before = await revisions(server)
    client = await server.client()

    await server.stop()
    await server.start()

    assert await revisions(server) == before
    assert (await client.get("/auth/me")).status == 200


async def test_a_schema_from_a_newer_version_refuses_to_start_by_name(
    begin: Begin, new_database: NewDatabase
) -> None:
    """F8; and it leaves the database alone."""
    server = await begin(**await new_database())
    await server.stop()
    await run_sql(server, MAKE_NEWER)

    server.spawn()
    code = await server.exit_code()

    assert code == 1
    said = server.log.splitlines()[-1]
    assert said.startswith("workroom: the database's schema is at revision")
    assert NEWER in said
    assert await revisions(server) == [NEWER]


async def revisions(server: Server) -> list[str]:
    return await run_sql(server, "SELECT version_num FROM alembic_version")


async def run_sql(server: Server, statement: str) -> list[str]:
    """Run it in the server's database; gives the first column of what it answers."""
    url = server.settings.get("DATABASE_URL")
    if url is None:
        return await asyncio.to_thread(_run_sqlite, server, statement)
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch(statement)]
    finally:
        await connection.close()


def _run_sqlite(server: Server, statement: str) -> list[str]:
    path = server.folder / "data" / "workroom.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        return [row[0] for row in connection.execute(statement)]
