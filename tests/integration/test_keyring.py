"""Keys that are known already: found at once, and never longer than they may work."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.core.database import utcnow
from app.services import keyring
from tests.client import Client
from tests.conftest import Server
from tests.integration.test_apikey_rotation import rotated, until
from tests.integration.test_apikeys import made
from tests.integration.test_statements import counted

HOME = "203.0.113.7"


async def a_known(server: Server, owner: Client, **fields: Any) -> dict[str, Any]:
    """A key that was used a moment ago."""
    key = await made(owner, **fields)
    assert server.runtime.principals.known_key(key["key"], HOME) is None
    await server.runtime.principals.of_key(key["key"], ip=HOME)
    return key


async def test_a_known_key_is_one_principal_for_everybody_who_asks(
    server: Server,
) -> None:
    key = await a_known(server, await server.client(), requests_per_minute=7)
    principals = server.runtime.principals

    found = principals.known_key(key["key"], HOME)

    assert found is not None
    assert found is principals.known_key(key["key"], HOME)
    assert found is await principals.of_key(key["key"], ip=HOME)
    assert found.session_id == UUID(key["id"])
    assert found.scopes == frozenset(key["scopes"])
    assert found.key is not None
    assert found.key.requests_per_minute == 7


async def test_a_known_key_is_neither_parsed_nor_timed_where_nothing_expires(
    server: Server, monkeypatch: Any
) -> None:
    """The gateway asks for it with each call."""
    key = await a_known(server, await server.client())
    for name in ("kind_of", "utcnow"):
        monkeypatch.delattr(keyring, name)

    assert server.runtime.principals.known_key(key["key"], HOME) is not None


async def test_a_key_that_is_not_known_costs_one_statement_and_no_session(
    server: Server,
) -> None:
    """Thousands of keys that were not used for a minute may come in a second."""
    key = await made(await server.client())

    run: list[str] = []
    server.runtime.database.watchers.append(run.append)

    with counted(server) as statements:
        await server.runtime.principals.of_key(key["key"], ip=HOME)
        await server.runtime.principals.of_key(key["key"], ip=HOME)

    assert len(statements) == 1
    assert statements[0] in run


async def test_looking_a_key_up_counts_as_its_use(server: Server) -> None:
    owner = await server.client()
    key = await a_known(server, owner)
    keys = server.runtime.principals.keys
    await keys.note_use()
    before = (await owner.get("/apikeys")).json["items"][0]["last_used_at"]

    server.runtime.principals.known_key(key["key"], HOME)
    await keys.note_use()

    assert (await owner.get("/apikeys")).json["items"][0]["last_used_at"] > before


async def test_a_revoked_key_is_known_no_more(server: Server) -> None:
    """TRUST T4."""
    owner = await server.client()
    key = await a_known(server, owner)

    await owner.delete(f"/apikeys/{key['id']}")

    assert server.runtime.principals.known_key(key["key"], HOME) is None


async def test_a_suspended_users_key_is_known_no_more(server: Server) -> None:
    """TRUST T4."""
    owner = await server.client()
    key = await a_known(server, owner)
    user = (await owner.get("/auth/me")).json["id"]

    suspended = await (await server.admin("users")).post(f"/admin/users/{user}/suspend")

    assert suspended.status == 200
    assert server.runtime.principals.known_key(key["key"], HOME) is None


async def test_an_expired_key_is_known_no_more(server: Server) -> None:
    """TRUST K2."""
    soon = utcnow() + timedelta(seconds=2)
    key = await a_known(server, await server.client(), expires_at=soon.isoformat())
    before = server.runtime.principals.known_key(key["key"], HOME)

    await until(soon)

    assert before is not None
    assert server.runtime.principals.known_key(key["key"], HOME) is None


async def test_a_grace_that_ends_is_felt_by_the_old_text_alone(server: Server) -> None:
    """TRUST T4."""
    owner = await server.client()
    principals = server.runtime.principals
    old = await a_known(server, owner)
    new = await rotated(owner, old, 1)
    for key in (old, new):
        await principals.of_key(key["key"], ip=HOME)
    before = [principals.known_key(key["key"], HOME) for key in (old, new)]

    await until(datetime.fromisoformat(new["previous"]["works_until"]))
    after = [principals.known_key(key["key"], HOME) for key in (old, new)]

    assert None not in before
    assert after == [None, before[1]]


async def test_a_known_key_works_from_its_networks_only(server: Server) -> None:
    """TRUST K2."""
    key = await a_known(server, await server.client(), allowed_ips=["203.0.113.0/24"])
    known = server.runtime.principals.known_key

    assert known(key["key"], HOME) is not None
    for elsewhere in ("198.51.100.1", "2001:db8::1", "nowhere", None):
        assert known(key["key"], elsewhere) is None


async def test_a_service_key_is_nobodys_principal(server: Server) -> None:
    key = (await server.service_key("introspect")).key
    await server.runtime.principals.service_of(key, ip=HOME)

    assert server.runtime.principals.known_key(key, HOME) is None
