"""New passwords, other addresses, and notices, all by mail (TRUST P3, P7, T4, T5)."""

import re
from base64 import b64encode
from datetime import timedelta

import pytest
from sqlalchemy import select

from app.core.database import Database, utcnow
from app.core.tokens import fingerprint
from app.models import AuditEvent, User, UserSession
from app.services.link import accounts
from tests import mailbox
from tests.conftest import Server
from tests.integration.linking import (
    ADA,
    ANOTHER,
    PASSWORD,
    forgot,
    hashes,
    login,
    mailed_token,
    reset,
    sign_up,
    verify,
)

# Forgotten passwords


async def test_a_forgotten_password_is_replaced_and_every_session_ends(
    server: Server, database: Database
) -> None:
    """TRUST T4."""
    client = await server.client()
    other = server.anonymous()
    await other.login(ADA, PASSWORD)
    await forgot(client)

    done = await reset(server.anonymous(), await mailed_token(server, "reset"))

    assert done.status == 204
    assert (await client.get("/auth/me")).status == 401
    assert (await other.get("/auth/me")).status == 401
    form = {"refresh_token": client.tokens["refresh_token"]}
    assert (await client.post("/auth/refresh", json=form)).status == 401
    assert await login(client, PASSWORD) == 401
    assert await login(client, ANOTHER) == 200
    assert "Your password for Workroom has changed" in await mailbox.subjects(server)
    async with database.unit_of_work(read_only=True) as session:
        actions = set(await session.scalars(select(AuditEvent.action)))
    assert "user.reset_password" in actions


async def test_a_reset_makes_one_hash_whether_or_not_its_link_works(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRUST P3."""
    client = server.anonymous()
    await sign_up(client)
    await forgot(client)
    token = await mailed_token(server, "reset")

    with hashes(monkeypatch) as of_unknown:
        assert (await reset(client, "unknown")).status == 422
    with hashes(monkeypatch) as of_right:
        assert (await reset(client, token)).status == 204
    with hashes(monkeypatch) as of_used:
        assert (await reset(client, token)).status == 422

    assert of_unknown == of_right == of_used == ["hash"]


async def test_a_login_makes_one_hash_on_every_path(
    server: Server, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    """TRUST P3: the very first of a process too."""
    client = server.anonymous()
    made = []
    for name, password, status in (
        ("nobody@example.com", PASSWORD, 401),
        (ADA, PASSWORD, 200),
        (ADA, "wrong", 401),
        ("nobody", PASSWORD, 401),
    ):
        if status == 200:
            await sign_up(client)
        with hashes(monkeypatch) as found:
            assert await login(client, password, name) == status
        made.append(found)

    assert made == [["check"]] * 4


@pytest.mark.parametrize("password", ["password1", ADA, "ada"])
async def test_a_weak_password_is_refused_and_the_link_still_works(
    server: Server, password: str
) -> None:
    """TRUST P1."""
    client = server.anonymous()
    await sign_up(client, username="ada-lovelace")
    await forgot(client)
    token = await mailed_token(server, "reset")

    refused = await reset(client, token, password)

    assert refused.status == 422
    assert [e["path"] for e in refused.json["errors"]] == ["password"]
    assert (await reset(client, token)).status == 204


async def test_one_reset_link_ends_the_others(server: Server) -> None:
    client = server.anonymous()
    await sign_up(client)
    await forgot(client)
    first = await mailed_token(server, "reset")
    await forgot(client)
    second = await mailed_token(server, "reset")

    assert (await reset(client, first)).status == 204
    assert (await reset(client, second, "a third pass phrase")).status == 422
    assert await login(client, ANOTHER) == 200


async def test_an_invited_user_chooses_the_password(
    server: Server, database: Database
) -> None:
    """TRUST A2: whoever made the account knows none."""
    async with database.unit_of_work() as session:
        user = User(email=ADA, password_hash="!")
        session.add(user)
        await session.flush()
        await accounts.invite(session, user)
    client = server.anonymous()
    assert await login(client, "!") == 401

    assert (await reset(client, await mailbox.token(server))).status == 204

    assert await login(client, ANOTHER) == 200
    assert await mailbox.subjects(server) == ["Your account at Workroom"]


# Other addresses


async def test_an_address_changes_once_the_new_one_is_confirmed(
    server: Server, database: Database
) -> None:
    """TRUST T5: and the old one is told."""
    client = await server.client()
    new = "ada@lovelace.example"

    asked = await client.post("/auth/change-email", json={"email": new})
    assert asked.status == 202
    assert (await client.get("/auth/me")).json["email"] == ADA
    changed = await verify(server.anonymous(), await mailbox.token(server, new))

    assert changed.json["email"] == new
    assert changed.json["email_verified_at"] is not None
    assert (await client.get("/auth/me")).json["email"] == new
    assert await login(client, PASSWORD, new) == 200
    assert await login(client, PASSWORD, ADA) == 401
    told = (await mailbox.mails(server, ADA))[-1]
    assert told["Subject"] == "The address of your account at Workroom has changed"
    assert new in mailbox.text_of(told)


async def test_an_address_that_another_has_is_neither_taken_nor_told(
    server: Server,
) -> None:
    ada, bob = await server.client("ada"), await server.client("bob")
    free = await ada.post("/auth/change-email", json={"email": "free@example.com"})
    taken = await ada.post("/auth/change-email", json={"email": "bob@example.com"})

    assert (free.status, free.body) == (taken.status, taken.body)
    assert await mailbox.subjects(server, "bob@example.com") == [
        "Confirm your address for Workroom"
    ]
    assert (await bob.get("/auth/me")).json["email"] == "bob@example.com"


async def test_an_address_that_is_taken_before_its_link_is_used_stays_anothers(
    server: Server,
) -> None:
    client = await server.client()
    await client.post("/auth/change-email", json={"email": "bob@example.com"})
    token = await mailbox.token(server, "bob@example.com")
    await server.client("bob")

    assert (await verify(client, token)).status == 422
    assert (await client.get("/auth/me")).json["email"] == ADA


@pytest.mark.parametrize("what", ["change", "reset"])
async def test_a_link_that_was_mailed_before_a_password_change_lets_nobody_in(
    server: Server, what: str
) -> None:
    """TRUST L1, P7: else who was in the account once could take it back."""
    client = await server.client()
    new = "mallory@example.com"
    if what == "change":
        await client.post("/auth/change-email", json={"email": new})
        token = await mailbox.token(server, new)
    else:
        await forgot(client)
        token = await mailed_token(server, "reset")
    form = {"current_password": PASSWORD, "new_password": ANOTHER}
    await client.post("/auth/change-password", json=form)

    use = verify if what == "change" else reset
    used = await use(server.anonymous(), token)

    assert (used.status, used.json["code"]) == (422, "invalid_link")
    assert await login(client, ANOTHER) == 200


async def test_an_address_changes_only_after_a_fresh_login(
    server: Server, database: Database
) -> None:
    """TRUST T5."""
    client = await server.client()
    async with database.unit_of_work() as session:
        for found in await session.scalars(select(UserSession)):
            found.authenticated_at -= timedelta(minutes=10, seconds=1)
    form = {"email": "new@example.com"}

    refused = await client.post("/auth/change-email", json=form)
    assert refused.status == 403
    assert refused.json["code"] == "fresh_login_required"
    renewed = await client.post(
        "/auth/refresh", json={"refresh_token": client.tokens["refresh_token"]}
    )
    client.use(renewed.json)
    assert (await client.post("/auth/change-email", json=form)).status == 403

    await client.login(ADA, PASSWORD)
    assert (await client.post("/auth/change-email", json=form)).status == 202


# Notices


async def test_a_login_from_elsewhere_is_told_and_a_familiar_one_is_not(
    server: Server,
) -> None:
    wanted = "A new login to Workroom"
    client = await server.client()
    await client.login(ADA, PASSWORD)
    assert wanted not in await mailbox.subjects(server, ADA)

    client.headers["User-Agent"] = "somebody's <b>browser</b>"
    await client.login(ADA, PASSWORD)
    await client.login(ADA, PASSWORD)

    told = [m for m in await mailbox.mails(server, ADA) if m["Subject"] == wanted]
    assert len(told) == 1
    assert "somebody's <b>browser</b>" in mailbox.text_of(told[0])
    assert "127.0.0.1" in mailbox.text_of(told[0])
    assert "<b>browser" not in mailbox.text_of(told[0], "html")


async def test_a_changed_password_is_told(server: Server) -> None:
    """TRUST P7."""
    client = await server.client()
    form = {"current_password": PASSWORD, "new_password": ANOTHER}
    await client.post("/auth/change-password", json=form)

    subjects = await mailbox.subjects(server, ADA)
    assert subjects[-1] == "Your password for Workroom has changed"
    assert utcnow().strftime("%d %B %Y") in mailbox.text_of(
        (await mailbox.mails(server, ADA))[-1]
    )


# Pages


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("/verify-email", "auth/verify-email"),
        ("/reset-password", "auth/reset-password"),
        ("/forgot-password", "auth/forgot-password"),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_page_lets_its_own_script_run_and_no_other(
    server: Server, path: str, call: str
) -> None:
    async with server._session.get(server.url + path) as answer:
        page = await answer.text()
        headers = answer.headers

    (policy,) = headers.getall("Content-Security-Policy")
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)
    assert script is not None
    digest = fingerprint(script[1])
    assert f"'sha256-{b64encode(digest).decode()}'" in policy
    assert "script-src 'sha256" in policy
    assert "connect-src 'self'" in policy
    assert f'data-call="api/v1/{call}"' in page
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
