"""The tables as they are: what the models say, what the migrations make."""

import asyncio
import json
import re
import secrets
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Connection,
    Inspector,
    func,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.ext.asyncio import create_async_engine

from alembic import command
from app.api.scopes import scopes_for
from app.core import migrations
from app.core.config import Settings
from app.models import MADE_BY_MIGRATIONS, Base
from tests.conftest import SettingsFactory, make_settings
from tests.integration.operations import OPERATIONS

LONGEST_NAME = 63  # PostgreSQL cuts what is longer, and nobody finds it again
CHANGE_ROWS_ALONE = {"9a41c7e05b2d", "7c3e9a50d1b8"}
CHANGE_NOTHING_ON_SQLITE = {"c40e7a9d15b2"}
Schema = dict[str, dict[str, Any]]
ROWS_OF_BEFORE = (
    """INSERT INTO users (id, email, password_hash, status, created_at, updated_at)
    VALUES (:user, 'a@b', 'x', 'active', CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)""",
    """INSERT INTO chats (id, user_id, title, model, archived, created_at, updated_at)
    VALUES (:chat, :user, 'Old', 'guide/manual', false, CURRENT_TIMESTAMP,
    CURRENT_TIMESTAMP)""",
    """INSERT INTO messages (id, chat_id, parent_id, role, content, citations, status,
    credits, attempt, created_at) VALUES
    (:message, :chat, NULL, 'user', '[]', '[]', 'complete', 0, 0, CURRENT_TIMESTAMP),
    (:reply, :chat, :message, 'assistant', '[]', '[]', 'complete', 0, 0,
    CURRENT_TIMESTAMP)""",
)
SESSION_OF_BEFORE = (
    """INSERT INTO users (id, email, password_hash, status, plan, log_messages,
    created_at, updated_at) VALUES (:user, 'a@b', 'x', 'active', 'free', true,
    CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)""",
    """INSERT INTO user_sessions (id, user_id, created_at, authenticated_at,
    last_used_at, expires_at) VALUES (:session, :user, CURRENT_TIMESTAMP,
    CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)""",
    """INSERT INTO refresh_tokens (id, session_id, token_hash, created_at)
    VALUES (:token, :session, 'hash', CURRENT_TIMESTAMP)""",
)
KEYS_OF_BEFORE = (
    """INSERT INTO users (id, email, password_hash, status, plan, log_messages,
    created_at, updated_at) VALUES (:user, 'a@b', 'x', 'active', 'free', true,
    CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)""",
    """INSERT INTO api_keys (id, user_id, name, prefix, key_hash, scopes, allowed_ips,
    created_at, updated_at) VALUES (:id, :user, 'x', :prefix, :hash, :scopes, '[]',
    CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)""",
)
MANUAL = (
    """INSERT INTO projects (id, name, context_mode, archived, deleted, created_at,
    updated_at) VALUES (:id, 'The manual', 'auto', false, false, CURRENT_TIMESTAMP,
    CURRENT_TIMESTAMP)""",
    """INSERT INTO project_documents (id, project_id, title, state, version, characters,
    indexed, tokens, chunks, terms, embedded, pages, text, created_at, updated_at)
    VALUES (:id, :id, 'A page', 'ready', 1, 1, 1, 1, 1, 1, 0, '[]', 'x',
    CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)""",
    """INSERT INTO chunks (id, document_id, start, "end", lead, text)
    VALUES (1, :id, 0, 1, '', 'x')""",
    """INSERT INTO postings (key, chunk_id, count, length) VALUES (1, 1, 1, 1)""",
)
OLD_SCOPES = ("chats:read", "chats:write", "models:read", "profile:read", "usage:read")


@pytest.fixture
def settings(settings_with: SettingsFactory) -> Settings:
    """Of a database at the newest revision."""
    return settings_with()


@pytest.fixture
def empty_settings(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Settings]:
    """Of a database without any table, of this test's own."""
    if backend == "sqlite":
        yield make_settings(tmp_path)
        return
    others = make_settings(
        tmp_path, DATABASE_URL=request.getfixturevalue("postgres_url")
    ).database_url
    name = f"migrations_{secrets.token_hex(6)}"
    asyncio.run(_administrate(others, f"CREATE DATABASE {name}"))
    own = make_url(others).set(database=name)
    yield make_settings(
        tmp_path, DATABASE_URL=own.render_as_string(hide_password=False)
    )
    asyncio.run(_administrate(others, f"DROP DATABASE {name} WITH (FORCE)"))


async def _administrate(url: str, statement: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


def schema_of(settings: Settings) -> Schema:
    """All that the database itself tells about its tables."""
    return migrations.run_with_connection(settings, _reflect)


def _reflect(connection: Connection) -> Schema:
    found = inspect(connection)
    tables = {
        table: {
            "columns": [
                (c["name"], str(c["type"]), c["nullable"], c["default"])
                for c in found.get_columns(table)
            ],
            "primary key": found.get_pk_constraint(table),
            "foreign keys": _sorted(found.get_foreign_keys(table)),
            "unique": _sorted(found.get_unique_constraints(table)),
            "checks": _sorted(found.get_check_constraints(table)),
            "indexes": _indexes(found, table),
            "options": _options(found, table),
        }
        for table in found.get_table_names()
        if not table.startswith(("alembic_version", *MADE_BY_MIGRATIONS))
    }
    # SQL expressions are objects, and these are never equal.
    plain: Schema = json.loads(json.dumps(tables, default=str))
    return plain


def _indexes(found: Inspector, table: str) -> list[Any]:
    """Without those that PostgreSQL makes for unique constraints."""
    indexes = found.get_indexes(table)
    return _sorted(
        [
            i
            for i in indexes
            if not i.get("duplicates_constraint")
            and not str(i["name"]).startswith(MADE_BY_MIGRATIONS)
        ]
    )


def _options(found: Inspector, table: str) -> dict[str, Any]:
    """Without what is the same of all."""
    options = found.get_table_options(table)
    return {k: v for k, v in options.items() if k != "postgresql_using"}


def _sorted(named: list[Any]) -> list[Any]:
    return sorted(named, key=lambda one: str(one["name"]))


def test_every_foreign_key_has_an_index_that_begins_with_it(settings: Settings) -> None:
    slow = [
        f"{table}: {key['name']}"
        for table, schema in schema_of(settings).items()
        for key in schema["foreign keys"]
        if not any(
            columns[: len(key["constrained_columns"])] == key["constrained_columns"]
            for columns in _leading(schema)
        )
    ]

    assert slow == []


def _leading(schema: dict[str, Any]) -> list[list[str]]:
    """The columns of all that a look-up can use."""
    return [
        schema["primary key"]["constrained_columns"],
        *(unique["column_names"] for unique in schema["unique"]),
        *(index["column_names"] for index in schema["indexes"]),
    ]


def test_every_constraint_and_index_is_named_by_the_convention(
    settings: Settings,
) -> None:
    for table, schema in schema_of(settings).items():
        assert schema["primary key"]["name"] == f"pk_{table}"
        for key in schema["foreign keys"]:
            columns = "_".join(key["constrained_columns"])
            assert key["name"] == f"fk_{table}_{columns}_{key['referred_table']}"
        for unique in schema["unique"]:
            assert unique["name"] == f"uq_{table}_{'_'.join(unique['column_names'])}"
        for check in schema["checks"]:
            assert check["name"].startswith(f"ck_{table}_")
        for index in schema["indexes"]:
            assert index["name"] in _index_names(table, index["column_names"])


def _index_names(table: str, columns: list[str]) -> set[str]:
    """An `id` at the end only orders equals: a name may leave it out."""
    whole = f"ix_{table}_{'_'.join(columns)}"
    return {whole, whole.removesuffix("_id") if len(columns) > 1 else whole}


def test_the_models_have_the_names_that_the_database_has(settings: Settings) -> None:
    """Alembic compares neither the names of keys nor checks at all."""
    for table, schema in schema_of(settings).items():
        named = [
            schema["primary key"],
            *schema["foreign keys"],
            *schema["unique"],
            *schema["checks"],
            *schema["indexes"],
        ]
        model = Base.metadata.tables[table]
        expected = {c.name for c in model.constraints}
        expected |= {index.name for index in model.indexes}

        assert {one["name"] for one in named} == expected
        assert all(len(str(name)) <= LONGEST_NAME for name in expected)


def test_the_models_have_the_options_that_the_database_has(
    settings: Settings, backend: str
) -> None:
    """Alembic does not compare these."""
    for table, schema in schema_of(settings).items():
        options = Base.metadata.tables[table].kwargs
        expected = {k: v for k, v in options.items() if k.startswith(backend)}

        assert schema["options"] == expected


def test_the_models_are_what_the_migrations_make(settings: Settings) -> None:
    """F8. Raises, naming each difference, where a migration is missing."""
    migrations.run_with_connection(
        settings,
        lambda connection: command.check(migrations.alembic_config(connection)),
    )


def test_every_migration_goes_up_down_and_up_again(
    empty_settings: Settings, backend: str
) -> None:
    nothing = CHANGE_NOTHING_ON_SQLITE if backend == "sqlite" else set()
    unseen = CHANGE_ROWS_ALONE | nothing
    script = ScriptDirectory.from_config(migrations.alembic_config())
    revisions = [r.revision for r in script.walk_revisions()][::-1]
    assert revisions
    before, below = schema_of(empty_settings), "base"
    assert before == {}

    for revision in revisions:
        migrations.upgrade(empty_settings, revision)
        after = schema_of(empty_settings)
        assert (after == before) == (revision in unseen)
        migrations.downgrade(empty_settings, below)
        assert schema_of(empty_settings) == before
        migrations.upgrade(empty_settings, revision)
        assert schema_of(empty_settings) == after
        before, below = after, revision


def test_chats_from_before_the_search_are_kept_and_a_job_indexes_them(
    empty_settings: Settings,
) -> None:
    ids = {"user": "a" * 32, "chat": "b" * 32, "message": "c" * 32, "reply": "d" * 32}

    def fill(connection: Connection) -> None:
        as_uuid = connection.dialect.name == "postgresql"
        values = {k: UUID(v) if as_uuid else v for k, v in ids.items()}
        for statement in ROWS_OF_BEFORE:
            used = {k: v for k, v in values.items() if f":{k}" in statement}
            connection.execute(text(statement), used)

    def look(connection: Connection) -> list[Any]:
        queries = (
            "SELECT title, pinned FROM chats",
            "SELECT rating FROM messages",
            "SELECT name FROM jobs",
        )
        found = [connection.execute(text(query)).all() for query in queries]
        return [tuple(row) for rows in found for row in rows]

    migrations.upgrade(empty_settings, "5e13f3b9d225")
    migrations.run_with_connection(empty_settings, fill)
    migrations.upgrade(empty_settings)

    found = migrations.run_with_connection(empty_settings, look)
    assert found == [("Old", False), (0,), (0,), ("chat.index",)]


def test_sessions_from_before_refresh_tokens_were_keyed_have_ended(
    empty_settings: Settings,
) -> None:
    def fill(connection: Connection) -> None:
        as_uuid = connection.dialect.name == "postgresql"
        ids = {"user": "a" * 32, "session": "b" * 32, "token": "c" * 32}
        values = {k: UUID(v) if as_uuid else v for k, v in ids.items()}
        for statement in SESSION_OF_BEFORE:
            used = {k: v for k, v in values.items() if f":{k}" in statement}
            connection.execute(text(statement), used)

    def look(connection: Connection) -> list[Any]:
        queries = (
            "SELECT count(*), count(revoked_at) FROM user_sessions",
            "SELECT count(*) FROM refresh_tokens",
        )
        return [tuple(connection.execute(text(query)).one()) for query in queries]

    migrations.upgrade(empty_settings, "6d2c8b14fa07")
    migrations.run_with_connection(empty_settings, fill)
    migrations.upgrade(empty_settings)

    assert migrations.run_with_connection(empty_settings, look) == [(1, 1), (0,)]


def test_the_manual_goes_with_the_schema_that_had_it(empty_settings: Settings) -> None:
    """Before, a project had an owner: nothing of one without may stay behind."""

    def fill(connection: Connection) -> None:
        one = UUID(int=1)
        key = one if connection.dialect.name == "postgresql" else one.hex
        for statement in MANUAL:
            connection.execute(text(statement), {"id": key})

    def count(connection: Connection) -> list[int]:
        tables = ("projects", "project_documents", "chunks", "postings")
        return [
            connection.scalar(select(func.count()).select_from(text(name))) or 0
            for name in tables
        ]

    migrations.upgrade(empty_settings, "d38b6c05f1e9")
    migrations.run_with_connection(empty_settings, fill)
    assert migrations.run_with_connection(empty_settings, count) == [1, 1, 1, 1]

    migrations.downgrade(empty_settings, "b61d0f83c7a5")
    assert migrations.run_with_connection(empty_settings, count) == [0, 0, 0, 0]


def old_scope_for(method: str, path: str) -> str | None:
    """What a key needed before the scopes of the gateway."""
    for pattern, reading, changing in (
        (r"/api/v1/(?:chats|messages)(?:/.*)?", "chats:read", "chats:write"),
        (r"/api/v1/models(?:/.*)?", "models:read", None),
        (r"/api/v1/usage(?:/limits)?", "usage:read", None),
        (r"/api/v1/(?:users|auth)/me", "profile:read", None),
    ):
        if re.fullmatch(pattern, path):
            return reading if method in {"GET", "HEAD"} else changing
    return None


def allowed(scopes: set[str]) -> set[str]:
    """What a key of these scopes, old or new, may call of what there was before."""
    return {
        operation.name
        for operation in OPERATIONS
        if (old := old_scope_for(operation.method, operation.path)) is not None
        and scopes & {old, *scopes_for(operation.method, operation.path)}
    }


def test_a_stored_keys_scopes_are_replaced_and_never_allow_more(
    empty_settings: Settings,
) -> None:
    """TRUST K2: neither up nor down again."""
    sets = [
        {*chosen, "ext:shop"}
        for count in range(len(OLD_SCOPES) + 1)
        for chosen in combinations(OLD_SCOPES, count)
    ]

    def fill(connection: Connection) -> None:
        as_uuid = connection.dialect.name == "postgresql"
        ids = [f"{number:032x}" for number in range(len(sets) + 1)]
        user, *keys = [UUID(one) if as_uuid else one for one in ids]
        connection.execute(text(KEYS_OF_BEFORE[0]), {"user": user})
        for number, (key, scopes) in enumerate(zip(keys, sets, strict=True)):
            row: dict[str, Any] = {"id": key, "user": user, "prefix": str(number)}
            row |= {"hash": bytes([number]), "scopes": json.dumps(sorted(scopes))}
            connection.execute(text(KEYS_OF_BEFORE[1]), row)

    def look(connection: Connection) -> list[set[str]]:
        stored = connection.execute(text("SELECT scopes FROM api_keys ORDER BY id"))
        return [
            set(json.loads(one) if isinstance(one, str) else one)
            for one in stored.scalars()
        ]

    migrations.upgrade(empty_settings, "4d0b7c92e1a5")
    migrations.run_with_connection(empty_settings, fill)
    migrations.upgrade(empty_settings, "7c3e9a50d1b8")
    new = migrations.run_with_connection(empty_settings, look)
    migrations.downgrade(empty_settings, "4d0b7c92e1a5")
    old_again = migrations.run_with_connection(empty_settings, look)

    steps = (sets, new, old_again)
    for one, other in pairwise(steps):
        for before, after in zip(one, other, strict=True):
            assert allowed(after) <= allowed(before), (before, after)
    assert all("ext:shop" in scopes for scopes in new + old_again)
    found = dict(zip((frozenset(one) for one in sets), new, strict=True))
    whole = frozenset({*OLD_SCOPES, "ext:shop"})
    assert found[whole] == {"chat", "models", "read", "ext:shop"}
    assert old_again[sets.index(set(whole))] == whole
    assert found[whole - {"usage:read"}] == {"chat", "models", "ext:shop"}
    assert found[frozenset({"chats:write", "ext:shop"})] == {"ext:shop"}
    assert found[frozenset({"models:read", "ext:shop"})] == {"models", "ext:shop"}


def test_a_migration_is_named_by_date_and_intent() -> None:
    script = ScriptDirectory.from_config(migrations.alembic_config())
    assert len(script.get_heads()) == 1

    for revision in script.walk_revisions():
        year, month, day, intent = Path(revision.path).stem.split("_", 3)
        assert (len(year), len(month), len(day)) == (4, 2, 2)
        assert intent.removesuffix(f"_{revision.revision}").count("_") >= 1


def test_no_relationship_loads_by_itself() -> None:
    eager = [
        str(relationship)
        for mapper in Base.registry.mappers
        for relationship in mapper.relationships
        if relationship.lazy not in {"raise", "raise_on_sql"}
    ]

    assert eager == []
