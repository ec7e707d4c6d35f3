"""Sealed columns, and their way from an old key to a new one."""

import base64

import pytest
from sqlalchemy import select, update

from app.core.anchor import Anchor
from app.core.config import ConfigError, Settings
from app.core.crypto import Crypto
from app.core.database import Database
from app.models import AuditChain
from app.services import audit, sealed
from app.services.audit.checking import check
from app.services.runtime import Runtime
from app.services.sealed import Rotation
from tests.conftest import SettingsFactory

OLD, NEW, OTHER = (base64.urlsafe_b64encode(bytes([n]) * 32).decode() for n in range(3))
COLUMNS = ["audit_chain.key"]


def test_the_sealed_columns_are_these() -> None:
    """TRUST D1: a column that others must not read is listed here."""
    assert [f"{c.table.name}.{c.name}" for c in sealed.columns()] == COLUMNS


def test_each_has_one_key_to_be_bound_to() -> None:
    assert all(len(c.table.primary_key) == 1 for c in sealed.columns())


@pytest.fixture
async def sealed_with_old(
    database: Database, settings_with: SettingsFactory
) -> Database:
    """A database of an installation whose key was OLD."""
    before = Database(settings_with(ENCRYPTION_KEY=OLD))
    async with before.unit_of_work() as session:
        await audit.record(session, audit.SYSTEM, "thing.do")
    await before.close()
    return database


async def rotate(settings: Settings) -> dict[str, Rotation]:
    database = Database(settings)
    try:
        rotations = await sealed.rotate(database, Crypto(settings.security))
    finally:
        await database.close()
    return {r.column: r for r in rotations}


async def key_of(database: Database) -> str:
    async with database.unit_of_work(read_only=True) as session:
        return (await session.scalars(select(AuditChain.key))).one()


async def test_after_a_rotation_the_old_key_may_go(
    sealed_with_old: Database, settings_with: SettingsFactory
) -> None:
    """TRUST D1."""
    both = settings_with(ENCRYPTION_KEY=f"{NEW},{OLD}")
    assert not Crypto(both.security).is_newest(await key_of(sealed_with_old))

    done = await rotate(both)

    assert done["audit_chain.key"].resealed == 1
    new = settings_with(ENCRYPTION_KEY=NEW)
    crypto, anchor = Crypto(new.security), Anchor(new.server.data_dir)
    assert crypto.is_newest(await key_of(sealed_with_old))
    findings = await check(sealed_with_old, crypto, anchor)
    assert (findings.events, findings.faults) == (2, [])


async def test_a_second_run_has_nothing_to_do(
    sealed_with_old: Database, settings_with: SettingsFactory
) -> None:
    both = settings_with(ENCRYPTION_KEY=f"{NEW},{OLD}")
    await rotate(both)

    done = await rotate(both)

    assert done["audit_chain.key"] == Rotation("audit_chain.key", rows=1)


@pytest.mark.parametrize("place", ["audit_chain.key:1", "audit_chain.key:2"])
async def test_what_does_not_open_is_named_and_left_alone(
    sealed_with_old: Database, settings_with: SettingsFactory, place: str
) -> None:
    """Sealed by a key that is gone, or brought here from another row."""
    crypto = Crypto(settings_with(ENCRYPTION_KEY=OLD).security)
    wrong = crypto.seal("ab" * 32, place=place)
    keys = f"{NEW},{OTHER if place.endswith('1') else OLD}"
    async with sealed_with_old.unit_of_work() as session:
        await session.execute(update(AuditChain).values(key=wrong))

    rotation = (await rotate(settings_with(ENCRYPTION_KEY=keys)))["audit_chain.key"]

    assert (rotation.rows, rotation.resealed, rotation.unreadable) == (1, 0, 1)
    assert rotation.first_unreadable[0].startswith("audit_chain.key:1 ")
    assert await key_of(sealed_with_old) == wrong


async def test_a_server_without_the_right_key_does_not_start(
    sealed_with_old: Database, settings_with: SettingsFactory
) -> None:
    """It could neither audit nor read what is sealed."""
    runtime = Runtime.build(settings_with(ENCRYPTION_KEY=OTHER))
    with pytest.raises(ConfigError, match="ENCRYPTION_KEY"):
        await runtime.open()
    await runtime.database.close()


async def test_what_a_server_wrote_meanwhile_stays(
    sealed_with_old: Database,
    settings_with: SettingsFactory,
) -> None:
    crypto = Crypto(settings_with(ENCRYPTION_KEY=f"{NEW},{OLD}").security)
    (column,) = (c for c in sealed.columns() if c.table.name == "audit_chain")
    stale = [{"row_id": 1, "old": "what it was", "new": "a stale text"}]
    before = await key_of(sealed_with_old)

    await sealed._store(sealed_with_old, column, stale)

    assert await key_of(sealed_with_old) == before
    assert crypto.open(before, place="audit_chain.key:1")
