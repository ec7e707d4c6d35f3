"""Second factors (TRUST L4)."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app.core import totp
from app.core.database import Database, utcnow
from app.models import (
    AuditEvent,
    Authenticator,
    DeskSession,
    RecoveryCode,
    UserSession,
)
from app.services.mfa import RECOVERY_CODES
from tests.client import Answer, Client
from tests.conftest import Server
from tests.integration.test_lockout import PASSWORD, hashes, mails, pass_time

_ = hashes  # a fixture


def code_of(secret: str, steps: int = 1) -> str:
    """The next one, so that a step's end between two lines changes nothing."""
    return totp.code(secret, int(time.time()) // totp.STEP + steps)


async def enroll(client: Client, desk: str = "") -> tuple[str, list[str]]:
    """Gives the secret and the recovery codes; the code of now is spent."""
    made = await client.post(f"{desk}/auth/mfa/totp/enroll")
    secret = made.json["secret"]
    confirmed = await client.post(
        f"{desk}/auth/mfa/totp/confirm", json={"otp": code_of(secret, 0)}
    )
    assert (made.status, confirmed.status) == (200, 200), confirmed.body
    return secret, confirmed.json["recovery_codes"]


async def log_in(client: Client, password: str = PASSWORD, **otp: str) -> Answer:
    form = {"login": "ada", "password": password, **otp}
    return await client.post("/auth/login", json=form)


async def test_from_enrolling_to_a_login_with_both_factors(server: Server) -> None:
    """TRUST L4."""
    client = await server.client()
    before = await client.get("/auth/mfa")

    secret, codes = await enroll(client)
    after = await client.get("/auth/mfa")
    with_password = await log_in(client)
    with_both = await log_in(client, otp=code_of(secret))

    assert before.json == {"totp": False, "recovery_codes_left": 0, "required": False}
    assert after.json == {"totp": True, "recovery_codes_left": 10, "required": False}
    assert len(set(codes)) == RECOVERY_CODES
    assert (with_password.status, with_password.json["code"]) == (401, "mfa_required")
    assert with_both.status == 200


async def test_the_oauth_form_takes_the_second_factor_too(server: Server) -> None:
    client = await server.client()
    secret, _ = await enroll(client)
    form = {"username": "ada", "password": PASSWORD}

    without = await client.post("/auth/token", data=form)
    both = await client.post("/auth/token", data=form | {"otp": code_of(secret)})

    assert (without.status, both.status) == (401, 200)


async def test_the_qr_code_holds_the_address_and_is_not_kept(server: Server) -> None:
    client = await server.client()

    made = await client.post("/auth/mfa/totp/enroll")

    assert made.headers["Cache-Control"] == "no-store"
    assert made.json["secret"] in made.json["uri"]
    assert "ada%40example.com" in made.json["uri"]
    assert made.json["qr_svg"].startswith("<svg")


async def test_a_code_works_once(server: Server) -> None:
    """TRUST L4: at the same moment, too."""
    client = await server.client()
    secret, _ = await enroll(client)
    code = code_of(secret)

    answers = await asyncio.gather(*(log_in(client, otp=code) for _ in range(4)))
    again = await log_in(client, otp=code)

    assert sorted(a.status for a in answers) == [200, 401, 401, 401]
    assert again.status == 401


async def test_the_code_that_confirmed_is_spent(server: Server) -> None:
    """TRUST L4."""
    client = await server.client()
    made = await client.post("/auth/mfa/totp/enroll")
    code = {"otp": code_of(made.json["secret"])}
    assert (await client.post("/auth/mfa/totp/confirm", json=code)).status == 200

    assert (await log_in(client, **code)).status == 401


async def test_five_wrong_codes_in_five_minutes_and_no_more(
    server: Server, database: Database
) -> None:
    """TRUST L4: that the password is right does not clear what was wrong."""
    client = await server.client()
    secret, _ = await enroll(client)
    for _ in range(5):
        wrong = await log_in(client, otp="000000")
        assert (wrong.status, wrong.json["code"]) == (401, "invalid_credentials")
        assert (await log_in(client)).status == 401

    locked = await log_in(client, otp=code_of(secret))
    await pass_time(database, 301)
    free = await log_in(client, otp=code_of(secret))

    assert (locked.status, locked.json["code"]) == (401, "invalid_credentials")
    assert free.status == 200


async def test_while_locked_nobody_hears_that_the_password_is_right(
    server: Server,
) -> None:
    client = await server.client()
    await enroll(client)
    for _ in range(5):
        await log_in(client, "wrong")

    assert (await log_in(client)).json["code"] == "invalid_credentials"


@pytest.mark.parametrize("otp", [None, "000000", "", "x" * 64, "right"])
async def test_each_login_hashes_one_password(
    server: Server, hashes: list[str], otp: str | None
) -> None:
    """TRUST P3."""
    client = await server.client()
    secret, _ = await enroll(client)
    hashes.clear()

    given = code_of(secret) if otp == "right" else otp
    await log_in(client, **({} if given is None else {"otp": given}))

    assert hashes == [PASSWORD]


async def test_a_recovery_code_works_once_however_it_is_typed(server: Server) -> None:
    """TRUST L4."""
    client = await server.client()
    _, codes = await enroll(client)
    typed = codes[0].upper().replace("-", " ")

    first = await log_in(client, otp=typed)
    again = await log_in(client, otp=codes[0])
    another = await log_in(client, otp=codes[1])

    assert (first.status, again.status, another.status) == (200, 401, 200)
    assert (await client.get("/auth/mfa")).json["recovery_codes_left"] == 8


async def test_secrets_are_sealed_and_recovery_codes_hashed(
    server: Server, database: Database
) -> None:
    """TRUST L4, D1."""
    client = await server.client()
    secret, codes = await enroll(client)

    async with database.unit_of_work(read_only=True) as session:
        found = (await session.scalars(select(Authenticator))).one()
        hashed = (await session.scalars(select(RecoveryCode.code_hash))).all()
        events = (await session.scalars(select(AuditEvent))).all()
    place = f"authenticators.secret:{found.id}"
    told = f"{[vars(event) for event in events]}"

    assert secret not in found.secret
    assert server.runtime.crypto.open(found.secret, place=place) == secret
    assert {len(code) for code in hashed} == {32}
    assert not [text for text in (secret, *codes) if text in told]
    assert "mfa.enable" in told


async def test_one_users_codes_are_nothing_to_another(server: Server) -> None:
    ada, bob = await server.client("ada"), await server.client("bob")
    _, codes = await enroll(ada)
    secret, _ = await enroll(bob)

    assert (await log_in(ada, otp=code_of(secret))).status == 401
    form = {"login": "bob", "password": PASSWORD, "otp": codes[0]}
    assert (await bob.post("/auth/login", json=form)).status == 401


async def test_what_is_not_confirmed_is_not_asked_for(server: Server) -> None:
    client = await server.client()
    first = await client.post("/auth/mfa/totp/enroll")
    second = await client.post("/auth/mfa/totp/enroll")
    old = {"otp": code_of(first.json["secret"])}

    wrong = await client.post("/auth/mfa/totp/confirm", json=old)

    assert (wrong.status, wrong.json["code"]) == (422, "invalid_otp")
    assert [e["path"] for e in wrong.json["errors"]] == ["otp"]
    assert first.json["secret"] != second.json["secret"]
    assert (await log_in(client)).status == 200


async def test_enrolling_twice_is_a_conflict(server: Server) -> None:
    client = await server.client()
    secret, _ = await enroll(client)

    again = await client.post("/auth/mfa/totp/enroll")
    code = {"otp": code_of(secret)}
    confirmed = await client.post("/auth/mfa/totp/confirm", json=code)

    assert (again.status, again.json["code"]) == (409, "mfa_already_enabled")
    assert (confirmed.status, confirmed.json["code"]) == (409, "mfa_not_enrolled")
    assert (await log_in(client)).json["code"] == "mfa_required"


async def test_of_twins_that_enroll_one_secret_is_left(
    server: Server, database: Database
) -> None:
    client = await server.client()

    answers = await asyncio.gather(
        *(client.post("/auth/mfa/totp/enroll") for _ in range(6))
    )

    assert {a.status for a in answers} <= {200, 409}
    async with database.unit_of_work(read_only=True) as session:
        found = (await session.scalars(select(Authenticator))).one()
    place = f"authenticators.secret:{found.id}"
    kept = server.runtime.crypto.open(found.secret, place=place)
    assert kept in {a.json.get("secret") for a in answers}


async def test_disabling_takes_a_code(server: Server, database: Database) -> None:
    """TRUST T5."""
    client = await server.client()
    secret, codes = await enroll(client)

    wrong = await client.post("/auth/mfa/totp/disable", json={"otp": "000000"})
    right = await client.post("/auth/mfa/totp/disable", json={"otp": code_of(secret)})
    no_more = await client.post("/auth/mfa/totp/disable", json={"otp": codes[0]})

    assert (wrong.status, right.status, no_more.status) == (422, 204, 422)
    assert (await log_in(client)).status == 200
    async with database.unit_of_work(read_only=True) as session:
        assert (await session.scalars(select(RecoveryCode))).all() == []


@pytest.mark.parametrize("what", ["enroll", "confirm", "disable"])
async def test_it_is_changed_by_a_fresh_login_alone(
    server: Server, database: Database, what: str
) -> None:
    """TRUST T5."""
    client = await server.client()
    async with database.unit_of_work() as session:
        theirs = (await session.scalars(select(UserSession))).one()
        theirs.authenticated_at = utcnow() - timedelta(minutes=11)

    refused = await client.post(f"/auth/mfa/totp/{what}", json={"otp": "000000"})

    assert (refused.status, refused.json["code"]) == (403, "fresh_login_required")


async def test_the_owner_is_told_of_each_change(
    server: Server, database: Database
) -> None:
    client = await server.client()
    _, codes = await enroll(client)
    await client.post("/auth/mfa/totp/disable", json={"otp": codes[0]})

    told = await mails(database, "mfa_changed")
    assert [mail["values"]["change"] for mail in told] == ["enabled", "disabled"]
    assert {mail["to"] for mail in told} == {"ada@example.com"}


async def test_guessing_the_code_to_disable_is_limited_too(
    server: Server, database: Database
) -> None:
    """TRUST L4."""
    client = await server.client()
    secret, _ = await enroll(client)
    for _ in range(5):
        await client.post("/auth/mfa/totp/disable", json={"otp": "000000"})

    right = {"otp": code_of(secret)}
    assert (await client.post("/auth/mfa/totp/disable", json=right)).status == 422
    await pass_time(database, 301)
    assert (await client.post("/auth/mfa/totp/disable", json=right)).status == 204


async def test_where_it_is_asked_for_one_may_only_enroll_until_one_has(
    serve: Any,
) -> None:
    async with serve(MFA_REQUIRED="user") as server:
        client = await server.client()
        refused = await client.get("/users/me")
        keyed = await client.post("/chats", json={}, headers={"Idempotency-Key": "one"})
        standing = await client.get("/auth/mfa")
        await enroll(client)
        allowed = await client.get("/users/me")

    assert (refused.status, refused.json["code"]) == (403, "mfa_enrollment_required")
    assert (keyed.status, keyed.json["code"]) == (403, "mfa_enrollment_required")
    assert standing.json["required"] is True
    assert allowed.status == 200


@pytest.mark.parametrize(
    ("desk", "read"),
    [("", "/users/me"), ("/admin", "/admin/auth/me"), ("/staff", "/staff/auth/me")],
)
async def test_where_it_is_asked_for_a_lost_phone_is_replaced_and_nothing_else_done(
    serve: Any, desk: str, read: str
) -> None:
    """TRUST L4: with a recovery code one gets as far as enrolling, and no further."""
    async with serve(MFA_REQUIRED="user,admin,staff") as server:
        client = await {
            "": server.client,
            "/admin": lambda: server.admin("users"),
            "/staff": lambda: server.staff(2),
        }[desk]()
        _, codes = await enroll(client, desk)
        before = await client.get(read)
        given_up = await client.post(
            f"{desk}/auth/mfa/totp/disable", json={"otp": codes[0]}
        )
        between = await client.get(read)
        await enroll(client, desk)
        after = await client.get(read)

    assert (before.status, given_up.status, after.status) == (200, 204, 200)
    assert (between.status, between.json["code"]) == (403, "mfa_enrollment_required")


async def test_it_is_asked_for_by_kind_and_level(serve: Any) -> None:
    async with serve(MFA_REQUIRED="staff:2, admin") as server:
        required = server.runtime.mfa.required
        assert not required("user")
        assert [required("staff", level) for level in (1, 2, 3)] == [False, True, True]
        assert required("admin")
        assert (await (await server.client()).get("/users/me")).status == 200


async def test_an_admin_enrolls_and_logs_in_with_both_factors(serve: Any) -> None:
    async with serve(MFA_REQUIRED="admin") as server:
        client = await server.admin("users")
        refused = await client.get("/admin/auth/me")
        secret, _ = await enroll(client, "/admin")
        allowed = await client.get("/admin/auth/me")
        name = allowed.json["username"]
        form = {"login": name, "password": PASSWORD}
        without = await client.post("/admin/auth/login", json=form)
        both = await client.post(
            "/admin/auth/login", json=form | {"otp": code_of(secret)}
        )

    assert (refused.status, refused.json["code"]) == (403, "mfa_enrollment_required")
    assert allowed.status == 200
    assert (without.json["code"], both.status) == ("mfa_required", 200)


async def test_support_of_a_level_enrolls_and_may_give_it_up_below(serve: Any) -> None:
    async with serve(MFA_REQUIRED="staff:2") as server:
        first, second = await server.staff(1), await server.staff(2, "linus")
        statuses = [(await c.get("/staff/auth/me")).status for c in (first, second)]
        standings = [(await c.get("/staff/auth/mfa")).json for c in (first, second)]
        _, codes = await enroll(first, "/staff")
        given_up = await first.post(
            "/staff/auth/mfa/totp/disable", json={"otp": codes[0]}
        )

    assert statuses == [200, 403]
    assert [standing["required"] for standing in standings] == [False, True]
    assert given_up.status == 204


async def test_failed_logins_lock_an_account_of_the_desk(server: Server) -> None:
    """TRUST P4."""
    client = await server.admin("users")
    name = (await client.get("/admin/auth/me")).json["username"]
    form = {"login": name, "password": "wrong"}
    for _ in range(5):
        assert (await client.post("/admin/auth/login", json=form)).status == 401

    right = form | {"password": PASSWORD}
    assert (await client.post("/admin/auth/login", json=right)).status == 401


async def test_an_admin_takes_away_what_a_user_has_lost(
    server: Server, database: Database
) -> None:
    client = await server.client()
    await enroll(client)
    user_id = (await client.get("/users/me")).json["id"]
    admin = await server.admin("users")

    assert (await admin.delete(f"/admin/users/{user_id}/mfa")).status == 204
    assert (await log_in(client)).status == 200
    assert len(await mails(database, "mfa_changed")) == 2


@pytest.mark.parametrize("kind", ["staff", "admin"])
async def test_an_admin_takes_away_what_a_colleague_has_lost(
    serve: Any, database: Database, kind: str
) -> None:
    """Of one who has no more rights than they; it counts at once."""
    async with serve(MFA_REQUIRED="staff,admin") as server:
        admin = await server.admin("staff", name="grace")
        mighty = await server.admin("logs", name="linus")
        theirs = await (server.staff(3) if kind == "staff" else server.admin())
        for client, desk in ((admin, "admin"), (mighty, "admin"), (theirs, kind)):
            await enroll(client, f"/{desk}")
        me = {c: (await c.get("/admin/auth/me")).json["id"] for c in (admin, mighty)}
        them = (await theirs.get(f"/{kind}/auth/me")).json["id"]
        folder = "staff" if kind == "staff" else "admins"

        taken = await admin.delete(f"/admin/{folder}/{them}/mfa")
        after = await theirs.get(f"/{kind}/auth/me")
        own = await admin.delete(f"/admin/admins/{me[admin]}/mfa")
        beyond = await admin.delete(f"/admin/admins/{me[mighty]}/mfa")

    assert (taken.status, after.status) == (204, 403)
    assert after.json["code"] == "mfa_enrollment_required"
    assert (own.json["code"], beyond.json["code"]) == (
        "own_account",
        "permission_required",
    )
    assert len(await mails(database, "mfa_changed")) == 4


@pytest.mark.parametrize("desk", ["admin", "staff"])
@pytest.mark.parametrize("what", ["enroll", "confirm", "disable"])
async def test_at_the_desk_too_it_takes_a_fresh_login(
    server: Server, database: Database, desk: str, what: str
) -> None:
    """TRUST T5."""
    client = await (server.admin("users") if desk == "admin" else server.staff(1))
    async with database.unit_of_work() as session:
        theirs = (await session.scalars(select(DeskSession))).one()
        theirs.created_at = utcnow() - timedelta(minutes=11)

    refused = await client.post(f"/{desk}/auth/mfa/totp/{what}", json={"otp": "0"})

    assert (refused.status, refused.json["code"]) == (403, "fresh_login_required")
    assert (await client.get(f"/{desk}/auth/mfa")).status == 200
