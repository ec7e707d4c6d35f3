"""Accounts and sessions over HTTP (TRUST P1, P2, P7, T1, T2, T3, T4)."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import func, select, update

from app.core.database import Database, utcnow
from app.models import AuditEvent, RefreshToken, User, UserSession
from app.services.auth import Auth
from tests.client import Client
from tests.conftest import Server

PASSWORD = "a long pass phrase"


async def register(client: Client, **fields: Any) -> Any:
    form = {"email": "ada@example.com", "password": PASSWORD} | fields
    return await client.post("/auth/register", json=form)


async def stored_user(database: Database) -> User:
    async with database.unit_of_work(read_only=True) as session:
        return (await session.scalars(select(User))).one()


async def age_tokens(database: Database, seconds: float) -> None:
    """Have all spent tokens be spent so much longer ago."""
    async with database.unit_of_work() as session:
        for token in await session.scalars(
            select(RefreshToken).where(RefreshToken.used_at.is_not(None))
        ):
            assert token.used_at is not None
            token.used_at -= timedelta(seconds=seconds)


async def test_register_login_and_read_oneself(server: Server) -> None:
    client = server.anonymous()

    created = await register(client, username="Ada", full_name=" Ada L. ")
    await client.login("ADA@example.com", PASSWORD)
    me = await client.get("/auth/me")

    assert created.status == 201
    assert created.json["email"] == "ada@example.com"
    assert created.json["username"] == "ada"
    assert created.json["full_name"] == "Ada L."
    assert "password" not in created.body.decode()
    assert me.json == created.json == (await client.get("/users/me")).json


async def test_the_username_and_the_oauth_form_log_in_too(server: Server) -> None:
    client = server.anonymous()
    await register(client, username="ada")

    by_name = await client.post(
        "/auth/login", json={"login": "Ada", "password": PASSWORD}
    )
    by_form = await client.post(
        "/auth/token", data={"username": "ada@example.com", "password": PASSWORD}
    )

    assert by_name.status == by_form.status == 200
    assert by_form.json["token_type"] == "bearer"
    assert by_form.json["expires_in"] == 1800


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"email": "no address"}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "password1"}, "password"),
        ({"password": "ada@example.com"}, "password"),
        ({"password": "x" * 257}, "password"),
        ({"username": "a b"}, "username"),
        ({"username": "me@example.com"}, "username"),
        ({"full_name": "  "}, "full_name"),
    ],
    ids=str,
)
async def test_a_wrong_field_is_named(
    server: Server, fields: dict[str, str], path: str
) -> None:
    answer = await register(server.anonymous(), **fields)

    assert answer.status == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [e["path"] for e in answer.json["errors"]] == [path]
    assert PASSWORD not in answer.body.decode()


async def test_who_chooses_a_wrong_name_reads_words_and_no_pattern(
    server: Server,
) -> None:
    for name in ("a b", "ab", ".ada", "ada\nbob", "a" * 33):
        answer = await register(server.anonymous(), username=name)

        [error] = answer.json["errors"]
        assert error["path"] == "username"
        assert error["message"].startswith("must be 3 to 32 letters, digits,")


async def test_every_wrong_field_is_named_at_once(server: Server) -> None:
    answer = await register(server.anonymous(), email="x", password="y", username="z")

    assert {e["path"] for e in answer.json["errors"]} == {
        "email",
        "password",
        "username",
    }


async def test_a_64_character_password_works_to_its_last_character(
    server: Server,
) -> None:
    """P1."""
    client = server.anonymous()
    password = "ü" * 63 + "1"
    assert (await register(client, password=password)).status == 201

    await client.login("ada@example.com", password)
    cut = {"login": "ada@example.com", "password": "ü" * 63}
    assert (await client.post("/auth/login", json=cut)).status == 401


@pytest.mark.parametrize(
    ("second", "code"),
    [
        ({"email": "ADA@example.com", "username": "other"}, "email_taken"),
        ({"email": "other@example.com", "username": "ADA"}, "username_taken"),
    ],
)
async def test_an_account_is_not_made_twice(
    server: Server, second: dict[str, str], code: str
) -> None:
    client = server.anonymous()
    await register(client, username="ada")

    answer = await register(client, **second)

    assert answer.status == 409
    assert answer.json["code"] == code


async def test_of_twins_at_one_moment_one_is_made(
    server: Server, database: Database
) -> None:
    client = server.anonymous()

    answers = await asyncio.gather(*(register(client) for _ in range(4)))

    assert sorted(a.status for a in answers) == [201, 409, 409, 409]
    await stored_user(database)


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("ada@example.com", "wrong"),
        ("nobody@example.com", PASSWORD),
        ("nobody", PASSWORD),
        ("'; DROP TABLE users; --", PASSWORD),
    ],
)
async def test_wrong_anything_gets_the_same_answer(
    server: Server, login: str, password: str
) -> None:
    client = server.anonymous()
    await register(client)

    answer = await client.post(
        "/auth/login", json={"login": login, "password": password}
    )

    assert answer.status == 401
    assert answer.json["code"] == "invalid_credentials"
    assert answer.json["detail"] == "These credentials are not right."


async def test_a_suspended_account_cannot_log_in(
    server: Server, database: Database
) -> None:
    client = await server.client()
    async with database.unit_of_work() as session:
        await session.execute(update(User).values(status="suspended"))
    server.runtime.principals.forget(*await _session_ids(database))

    form = {"login": "ada@example.com", "password": PASSWORD}
    assert (await client.post("/auth/login", json=form)).status == 401
    assert (await client.get("/auth/me")).status == 401


async def _session_ids(database: Database) -> list[UUID]:
    async with database.unit_of_work(read_only=True) as session:
        return list(await session.scalars(select(UserSession.id)))


async def test_an_outdated_hash_is_rewritten_after_the_answer(
    serve: Any, database: Database
) -> None:
    """P2."""
    async with serve(BCRYPT_ROUNDS="4") as server:
        await register(server.anonymous())
    before = (await stored_user(database)).password_hash

    async with serve(BCRYPT_ROUNDS="5") as server:
        client = server.anonymous()
        await client.login("ada@example.com", PASSWORD)
        async with asyncio.timeout(10):
            while (await stored_user(database)).password_hash == before:  # noqa: ASYNC110 - the database tells
                await asyncio.sleep(0.01)
        after = (await stored_user(database)).password_hash
        await client.login("ada@example.com", PASSWORD)
    again = (await stored_user(database)).password_hash

    assert before.startswith("bcrypt_sha256$$2b$04$")
    assert after.startswith("bcrypt_sha256$$2b$05$")
    assert again == after


async def test_a_refresh_gives_a_new_pair_and_the_old_token_is_spent(
    server: Server, database: Database
) -> None:
    """T2, T3."""
    client = await server.client()
    first = client.tokens["refresh_token"]

    second = await client.post("/auth/refresh", json={"refresh_token": first})
    assert second.status == 200
    assert second.json["refresh_token"] != first
    client.use(second.json)
    assert (await client.get("/auth/me")).status == 200

    await age_tokens(database, 11)
    reused = await client.post("/auth/refresh", json={"refresh_token": first})
    assert reused.status == 401
    assert reused.json["code"] == "invalid_refresh_token"
    # The whole family ended, its newest members too.
    newest = {"refresh_token": second.json["refresh_token"]}
    assert (await client.post("/auth/refresh", json=newest)).status == 401
    assert (await client.get("/auth/me")).status == 401


async def test_concurrent_refreshes_converge_on_one_session(
    server: Server, database: Database
) -> None:
    """T3."""
    client = await server.client()
    form = {"refresh_token": client.tokens["refresh_token"]}

    answers = await asyncio.gather(
        *(client.post("/auth/refresh", json=form) for _ in range(8))
    )

    assert {a.status for a in answers} == {200}
    assert len({a.json["refresh_token"] for a in answers}) == 1
    successor = {"refresh_token": answers[0].json["refresh_token"]}
    assert (await client.post("/auth/refresh", json=successor)).status == 200
    assert len(await _session_ids(database)) == 1


async def test_a_client_that_lost_the_answer_can_retry(
    server: Server, database: Database
) -> None:
    """T3: inside the grace time, and from there on as if nothing had happened."""
    client = await server.client()
    form = {"refresh_token": client.tokens["refresh_token"]}
    lost = await client.post("/auth/refresh", json=form)
    await age_tokens(database, 9)

    retried = await client.post("/auth/refresh", json=form)

    assert retried.json["refresh_token"] == lost.json["refresh_token"]
    client.use(retried.json)
    assert (await client.get("/auth/me")).status == 200


async def test_refresh_tokens_are_stored_hashed(
    server: Server, database: Database
) -> None:
    """T2."""
    client = await server.client()
    async with database.unit_of_work(read_only=True) as session:
        stored = (await session.scalars(select(RefreshToken.token_hash))).all()

    assert len(stored) == 1
    assert client.tokens["refresh_token"].encode() not in stored[0]


async def test_a_new_secret_key_ends_sessions(serve: Any) -> None:
    """T2: access tokens and refresh tokens, and those who log in again go on."""
    sealing = {"ENCRYPTION_KEY": Fernet.generate_key().decode()}
    async with serve(**sealing) as server:
        tokens = (await server.client()).tokens
    another = "another secret key, only for this test"
    async with serve(SECRET_KEY=another, **sealing) as server:
        client = server.anonymous()
        client.use(tokens)

        assert (await client.get("/auth/me")).status == 401
        form = {"refresh_token": tokens["refresh_token"]}
        refused = await client.post("/auth/refresh", json=form)

        assert (refused.status, refused.json["code"]) == (401, "invalid_refresh_token")
        await client.login("ada@example.com", "a long pass phrase")
        assert (await client.get("/auth/me")).status == 200


async def test_a_session_ends_absolutely_however_often_it_is_refreshed(
    server: Server, database: Database
) -> None:
    """T2."""
    client = await server.client()
    async with database.unit_of_work() as session:
        found = (await session.scalars(select(UserSession))).one()
        assert found.expires_at - found.created_at == pytest.approx(
            timedelta(days=7), abs=timedelta(seconds=1)
        )
        found.expires_at = utcnow() - timedelta(seconds=1)

    form = {"refresh_token": client.tokens["refresh_token"]}
    assert (await client.post("/auth/refresh", json=form)).status == 401


@pytest.mark.parametrize("token", ["", "x", "x" * 256])
async def test_an_unknown_refresh_token_is_refused(server: Server, token: str) -> None:
    client = server.anonymous()

    refused = await client.post("/auth/refresh", json={"refresh_token": token})
    ended = await client.post("/auth/logout", json={"refresh_token": token})

    assert refused.status == 401
    assert ended.status == 204


async def test_an_access_token_is_no_refresh_token_and_the_other_way_round(
    server: Server,
) -> None:
    """T1."""
    client = await server.client()
    form = {"refresh_token": client.tokens["access_token"][:256]}
    assert (await client.post("/auth/refresh", json=form)).status == 401

    client.headers["Authorization"] = f"Bearer {client.tokens['refresh_token']}"
    assert (await client.get("/auth/me")).status == 401


async def test_logout_ends_the_access_token_at_once(server: Server) -> None:
    """T4."""
    client = await server.client()
    assert (await client.get("/auth/me")).status == 200

    form = {"refresh_token": client.tokens["refresh_token"]}
    assert (await client.post("/auth/logout", json=form)).status == 204

    refused = await client.get("/auth/me")
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert (await client.post("/auth/refresh", json=form)).status == 401


async def test_a_token_of_a_session_that_never_was_is_refused(server: Server) -> None:
    client = await server.client()
    me = (await client.get("/auth/me")).json
    token = server.runtime.tokens.issue_access(
        account_id=UUID(me["id"]), session_id=uuid4(), now=utcnow()
    )
    client.headers["Authorization"] = f"Bearer {token}"

    assert (await client.get("/auth/me")).status == 401


async def test_sessions_are_listed_and_ended_one_by_one(server: Server) -> None:
    """T4."""
    first = await server.client()
    second = server.anonymous()
    await second.login("ada@example.com", PASSWORD)

    listed = (await second.get("/auth/sessions")).json["items"]
    assert [s["current"] for s in listed] == [True, False]
    assert listed[0]["ip"] == "127.0.0.1"
    assert "aiohttp" in listed[0]["user_agent"]
    assert (await second.delete(f"/auth/sessions/{listed[1]['id']}")).status == 204

    assert (await first.get("/auth/me")).status == 401
    assert (await second.get("/auth/me")).status == 200
    assert len((await second.get("/auth/sessions")).json["items"]) == 1


async def test_another_users_session_is_not_there(server: Server) -> None:
    ada, bob = await server.client("ada"), await server.client("bob")
    hers = (await ada.get("/auth/sessions")).json["items"][0]["id"]

    assert (await bob.delete(f"/auth/sessions/{hers}")).status == 404
    assert (await ada.get("/auth/me")).status == 200


@pytest.mark.parametrize("end_others", [True, False])
async def test_a_password_change_can_end_the_other_sessions(
    server: Server, *, end_others: bool
) -> None:
    """P7."""
    client = await server.client()
    other = server.anonymous()
    await other.login("ada@example.com", PASSWORD)

    changed = await client.post(
        "/auth/change-password",
        json={
            "current_password": PASSWORD,
            "new_password": "another pass phrase",
            "end_other_sessions": end_others,
        },
    )

    assert changed.status == 204
    assert (await client.get("/auth/me")).status == 200
    assert (await other.get("/auth/me")).status == (401 if end_others else 200)
    await server.anonymous().login("ada@example.com", "another pass phrase")
    old = {"login": "ada@example.com", "password": PASSWORD}
    assert (await client.post("/auth/login", json=old)).status == 401
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        actions = set(await session.scalars(select(AuditEvent.action)))
    assert "user.change_password" in actions


@pytest.mark.parametrize(
    ("current", "new", "path"),
    [
        ("wrong", "another pass phrase", "current_password"),
        (PASSWORD, "password1", "new_password"),
        (PASSWORD, "ada@example.com", "new_password"),
    ],
)
async def test_a_password_change_needs_the_current_one_and_a_good_new_one(
    server: Server, current: str, new: str, path: str
) -> None:
    """P7."""
    client = await server.client()

    refused = await client.post(
        "/auth/change-password", json={"current_password": current, "new_password": new}
    )

    assert refused.status == 422
    assert [e["path"] for e in refused.json["errors"]] == [path]
    await client.login("ada@example.com", PASSWORD)


async def test_the_profile_changes_field_by_field(server: Server) -> None:
    ada, bob = await server.client("ada"), await server.client("bob")

    changed = await ada.patch("/users/me", json={"full_name": "Ada", "id": "x"})
    taken = await ada.patch("/users/me", json={"username": "BOB"})
    emptied = await ada.patch("/users/me", json={"full_name": None})

    assert changed.json["full_name"] == "Ada"
    assert changed.json["username"] == "ada"
    assert taken.status == 409
    assert taken.json["code"] == "username_taken"
    assert emptied.json["full_name"] is None
    assert (await bob.get("/users/me")).json["username"] == "bob"


async def test_ended_sessions_are_purged_with_their_tokens(
    server: Server, database: Database
) -> None:
    await server.client("ada")
    await server.client("bob")
    async with database.unit_of_work() as session:
        old = (await session.scalars(select(UserSession).limit(1))).one()
        old.revoked_at = utcnow() - timedelta(days=31)
    auth: Auth = server.runtime.auth

    await auth.purge(database)

    async with database.unit_of_work(read_only=True) as session:
        assert await session.scalar(select(func.count(UserSession.id))) == 1
        assert await session.scalar(select(func.count(RefreshToken.id))) == 1
