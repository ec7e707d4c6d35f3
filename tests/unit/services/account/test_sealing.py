"""A user's row as sealed text, and back (TRUST D1, D3)."""

from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import select, update

from app.core.config import SecuritySettings
from app.core.crypto import Crypto, CryptoError
from app.core.database import Database
from app.models import User
from app.services.account import sealing

USERS = User.__table__
CRYPTO = Crypto(SecuritySettings(secret_key="a secret key that is only for tests"))


async def add_user(database: Database, **fields: Any) -> UUID:
    user = User(email="ada@example.com", password_hash="hash", **fields)
    async with database.unit_of_work() as session:
        session.add(user)
    return user.id


async def row_of(database: Database, user_id: UUID) -> dict[str, Any]:
    async with database.unit_of_work(read_only=True) as session:
        found = await session.execute(select(USERS).where(USERS.c.id == user_id))
        return dict(found.mappings().one())


async def sealed(database: Database, user_id: UUID) -> str:
    async with database.unit_of_work() as session:
        return await sealing.seal(session, CRYPTO, user_id, reason="Why not?")


async def test_every_column_comes_back_as_it_was(database: Database) -> None:
    """TRUST D3."""
    user_id = await add_user(database, username="ada", full_name='Ada "A" Lovelace 語')
    before = await row_of(database, user_id)

    content = sealing.unseal(CRYPTO, user_id, await sealed(database, user_id))

    assert content.row == before
    for name, value in content.row.items():  # PostgreSQL's driver has a UUID of its own
        assert isinstance(before[name], type(value))
    assert content.reason == "Why not?"


async def test_an_emptied_row_can_be_stored_and_holds_nothing(
    database: Database,
) -> None:
    """TRUST D3. Also with the columns that later migrations bring."""
    user_id = await add_user(database, username="ada", full_name="Ada")
    before = await row_of(database, user_id)

    async with database.unit_of_work() as session:
        await session.execute(
            update(User).where(User.id == user_id).values(**sealing.emptied(user_id))
        )

    after = await row_of(database, user_id)
    kept = {name for name, value in after.items() if value and value == before[name]}
    links = {column.name for column in USERS.columns if column.foreign_keys}
    switches = {name for name, value in before.items() if isinstance(value, bool)}
    assert kept - switches == {"id"} | links


async def test_what_is_sealed_does_not_open_for_another(database: Database) -> None:
    """TRUST D1."""
    text = await sealed(database, await add_user(database))

    with pytest.raises(CryptoError):
        sealing.unseal(CRYPTO, uuid4(), text)


async def test_columns_that_came_or_went_since_do_not_matter(
    database: Database,
) -> None:
    user_id = await add_user(database)
    place = f"deleted_users.sealed:{user_id}"
    content = orjson.loads(CRYPTO.open(await sealed(database, user_id), place=place))
    del content["row"]["full_name"]
    content["row"]["favourite_colour"] = "green"
    older = CRYPTO.seal(orjson.dumps(content).decode(), place=place)

    row = sealing.unseal(CRYPTO, user_id, older).row

    assert row.keys() == set(USERS.columns.keys()) - {"full_name"}
