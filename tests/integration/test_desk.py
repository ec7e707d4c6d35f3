"""Logging in at the desk, the accounts there, and who makes and changes whom."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from app.core.database import Database, utcnow
from app.models import Admin, AuditEvent, DeskRefreshToken, DeskSession, SupportStaff
from tests.client import Client
from tests.conftest import Server, desk_form
from tests.integration.things import PERMISSIONS

PASSWORD = "a long pass phrase"


async def events(database: Database, action: str) -> list[AuditEvent]:
    async with database.unit_of_work(read_only=True) as session:
        found = await session.scalars(
            select(AuditEvent)
            .where(AuditEvent.action == action)
            .order_by(AuditEvent.seq)
        )
        return list(found)


async def new_staff(admin: Client, level: int = 1, name: str = "grace") -> str:
    made = await admin.post("/admin/staff", json=desk_form(name) | {"level": level})
    assert made.status == 201, made.body
    return str(made.json["id"])


async def new_admin(admin: Client, *permissions: str, name: str = "second") -> Any:
    form = desk_form(name) | {"permissions": permissions}
    return await admin.post("/admin/admins", json=form)


@pytest.mark.parametrize("desk", ["/admin", "/staff"])
async def test_the_desk_logs_in_by_name_or_address(server: Server, desk: str) -> None:
    await server.admin("users", name="root")
    await server.staff(2, name="root")
    client = server.anonymous()

    await client.login("ROOT", PASSWORD, desk=desk)
    await client.login("Root@desk.example.com", PASSWORD, desk=desk)
    me = await client.get(f"{desk}/auth/me")

    assert me.json["username"] == "root"
    assert "password" not in me.body.decode()
    rights = {"permissions": ["users"]} if desk == "/admin" else {"level": 2}
    assert rights.items() <= me.json.items()
    logged = await events(server.runtime.database, "desk.login")
    assert {e.actor_kind for e in logged} == {"admin", "staff"}


@pytest.mark.parametrize(
    ("login", "password"),
    [("root", "wrong"), ("nobody", PASSWORD), ("ada", PASSWORD), ("fay", PASSWORD)],
)
async def test_wrong_anything_gets_the_same_answer(
    server: Server, login: str, password: str
) -> None:
    """TRUST P3: an admin's name, a stranger's, a user's and a colleague's of staff."""
    await server.admin(name="root")
    await server.staff(3, name="fay")
    await server.client("ada")

    answer = await server.anonymous().post(
        "/admin/auth/login", json={"login": login, "password": password}
    )

    assert answer.status == 401
    assert answer.json["code"] == "invalid_credentials"
    assert answer.json["detail"] == "These credentials are not right."


async def test_exactly_one_hash_is_made_on_every_path(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRUST P3: counted, not timed."""
    await server.admin(name="root")
    hashed: list[str | None] = []
    verify = server.runtime.passwords._verify

    def counting(password: str, stored: str | None) -> bool:
        hashed.append(stored)
        return bool(verify(password, stored))

    monkeypatch.setattr(server.runtime.passwords, "_verify", counting)
    for login, password in (("root", PASSWORD), ("root", "x"), ("nobody", PASSWORD)):
        form = {"login": login, "password": password}
        await server.anonymous().post("/admin/auth/login", json=form)

    assert len(hashed) == 3


async def test_a_session_at_the_desk_is_refreshed_and_ends_with_its_day(
    server: Server,
) -> None:
    """TRUST T2."""
    client = await server.admin(name="root")
    first = {"refresh_token": client.tokens["refresh_token"]}
    database: Database = server.runtime.database

    second = await client.post("/admin/auth/refresh", json=first)
    assert second.status == 200
    client.use(second.json)
    assert (await client.get("/admin/auth/me")).status == 200

    async with database.unit_of_work() as session:
        lasting = (await session.scalars(select(DeskSession))).one()
        assert lasting.expires_at - lasting.created_at <= timedelta(hours=12)
        lasting.expires_at = utcnow()
    form = {"refresh_token": second.json["refresh_token"]}
    assert (await client.post("/admin/auth/refresh", json=form)).status == 401


async def test_a_refresh_token_used_again_ends_the_session(server: Server) -> None:
    """TRUST T3."""
    client = await server.staff(1)
    form = {"refresh_token": client.tokens["refresh_token"]}
    assert (await client.post("/staff/auth/refresh", json=form)).status == 200
    async with server.runtime.database.unit_of_work() as session:
        long_ago = utcnow() - timedelta(minutes=1)
        await session.execute(
            update(DeskRefreshToken)
            .where(DeskRefreshToken.used_at.is_not(None))
            .values(used_at=long_ago)
        )

    assert (await client.post("/staff/auth/refresh", json=form)).status == 401

    assert (await client.get("/staff/auth/me")).status == 401


async def test_a_token_of_one_desk_is_none_at_another(server: Server) -> None:
    """TRUST T1."""
    admin, staff = await server.admin(*PERMISSIONS), await server.staff(3)
    user = await server.client()

    for client, paths in (
        (admin, ("/staff/auth/me", "/auth/me")),
        (staff, ("/admin/auth/me", "/auth/me")),
        (user, ("/admin/auth/me", "/staff/auth/me")),
    ):
        assert [(await client.get(path)).status for path in paths] == [401, 401]
    for client, others in ((admin, "/staff"), (staff, "/admin"), (user, "/admin")):
        form = {"refresh_token": client.tokens["refresh_token"]}
        assert (await client.post(f"{others}/auth/refresh", json=form)).status == 401


async def test_logout_ends_the_access_token_at_once(server: Server) -> None:
    """TRUST T4."""
    client = await server.admin()
    form = {"refresh_token": client.tokens["refresh_token"]}

    assert (await client.post("/admin/auth/logout", json=form)).status == 204

    assert (await client.get("/admin/auth/me")).status == 401
    assert (await client.post("/admin/auth/logout", json=form)).status == 204


@pytest.mark.parametrize(
    "change",
    [{"level": 1}, {"status": "suspended"}, {"password": "another pass phrase"}],
    ids=str,
)
async def test_demotion_suspension_and_a_new_password_end_unexpired_tokens(
    server: Server, change: dict[str, Any]
) -> None:
    """TRUST T4."""
    admin = await server.admin("staff")
    staff_id = await new_staff(admin, 3)
    staff = server.anonymous()
    await staff.login("grace", PASSWORD, desk="/staff")
    assert (await staff.get("/staff/users")).status == 200

    changed = await admin.patch(f"/admin/staff/{staff_id}", json=change)

    assert changed.status == 200
    assert "password" not in changed.body.decode()
    assert (await staff.get("/staff/users")).status == 401
    (event,) = await events(server.runtime.database, "staff.change")
    assert event.details is not None
    assert "another pass phrase" not in str(event.details)
    assert event.details["after"] == {
        name: "changed" if name == "password" else value
        for name, value in change.items()
    }


@pytest.mark.parametrize("end_others", [True, False])
async def test_one_changes_one_s_own_password(
    server: Server, *, end_others: bool
) -> None:
    """TRUST P7."""
    staff, other = await server.staff(1), await server.staff(1)
    new = "another pass phrase"
    form = {
        "current_password": PASSWORD,
        "new_password": new,
        "end_other_sessions": end_others,
    }

    wrong = await staff.post(
        "/staff/auth/change-password", json=form | {"current_password": "x"}
    )
    weak = await staff.post(
        "/staff/auth/change-password", json=form | {"new_password": "password1"}
    )
    changed = await staff.post("/staff/auth/change-password", json=form)

    assert [e["path"] for e in wrong.json["errors"]] == ["current_password"]
    assert [e["path"] for e in weak.json["errors"]] == ["new_password"]
    assert changed.status == 204
    assert (await staff.get("/staff/auth/me")).status == 200
    assert (await other.get("/staff/auth/me")).status == (401 if end_others else 200)
    await server.anonymous().login("grace", new, desk="/staff")
    old = {"login": "grace", "password": PASSWORD}
    assert (await staff.post("/staff/auth/login", json=old)).status == 401


async def test_a_deleted_account_is_out_at_once(server: Server) -> None:
    """TRUST T4."""
    admin = await server.admin("staff", name="root")
    second = await server.admin(name="second")
    listed = (await admin.get("/admin/admins")).json["items"]
    (its_id,) = (one["id"] for one in listed if one["username"] == "second")

    assert (await admin.delete(f"/admin/admins/{its_id}")).status == 204

    assert (await second.get("/admin/auth/me")).status == 401
    assert (await admin.get(f"/admin/admins/{its_id}")).status == 404


async def test_nobody_gives_a_permission_that_they_do_not_have(server: Server) -> None:
    """TRUST A2."""
    admin = await server.admin("staff", "users", name="root")

    beyond = await new_admin(admin, "users", "credits")
    within = await new_admin(admin, "users")
    its_id = within.json["id"]
    more = await admin.patch(f"/admin/admins/{its_id}", json={"permissions": ["logs"]})
    fewer = await admin.patch(f"/admin/admins/{its_id}", json={"permissions": []})

    assert (beyond.status, within.status) == (403, 201)
    assert beyond.json["code"] == "permission_required"
    assert "credits" in beyond.json["detail"]
    assert more.status == 403
    assert fewer.json["permissions"] == []


async def test_nobody_touches_who_has_more_than_they(server: Server) -> None:
    """TRUST A2."""
    await server.admin(*PERMISSIONS, name="root")
    clerk = await server.admin("staff", name="clerk")
    listed = (await clerk.get("/admin/admins")).json["items"]
    (root,) = (one["id"] for one in listed if one["username"] == "root")

    answers = [
        await clerk.patch(f"/admin/admins/{root}", json={"status": "suspended"}),
        await clerk.patch(f"/admin/admins/{root}", json={"password": "my pass phrase"}),
        await clerk.delete(f"/admin/admins/{root}"),
    ]

    assert [answer.status for answer in answers] == [403] * 3
    await server.anonymous().login("root", PASSWORD, desk="/admin")


async def test_nobody_changes_themselves(server: Server) -> None:
    """TRUST A2: so no right grows by itself, and the last admin stays."""
    admin = await server.admin("staff")
    me = (await admin.get("/admin/auth/me")).json["id"]

    changed = await admin.patch(f"/admin/admins/{me}", json={"permissions": []})
    deleted = await admin.delete(f"/admin/admins/{me}")

    assert (changed.status, deleted.status) == (403, 403)
    assert changed.json["code"] == "own_account"


async def test_staff_can_neither_make_accounts_nor_choose_passwords(
    server: Server,
) -> None:
    """TRUST A2."""
    staff = await server.staff(3)
    user = await server.client()
    user_id = (await user.get("/auth/me")).json["id"]

    own = await staff.post("/admin/staff", json=desk_form("new") | {"level": 1})
    forged = await staff.patch(f"/staff/users/{user_id}", json={"password": "mine now"})

    assert (own.status, forged.status) == (401, 405)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"password": "password1"}, "password"),
        ({"password": "grace@desk.example.com"}, "password"),
        ({"level": 4}, "level"),
        ({"email": "x"}, "email"),
    ],
    ids=str,
)
async def test_a_wrong_field_is_named(
    server: Server, fields: dict[str, Any], path: str
) -> None:
    admin = await server.admin("staff")

    form = desk_form("grace") | {"level": 1} | fields
    refused = await admin.post("/admin/staff", json=form)

    assert refused.status == 422
    assert [e["path"] for e in refused.json["errors"]] == [path]


async def test_a_name_is_given_once(server: Server) -> None:
    admin = await server.admin("staff")
    await new_staff(admin, name="grace")

    form = desk_form("grace") | {"level": 1, "email": "other@example.com"}
    again = await admin.post("/admin/staff", json=form)

    assert (again.status, again.json["code"]) == (409, "username_taken")


async def test_what_is_left_out_stays_and_what_cannot_be_null_too(
    server: Server,
) -> None:
    admin = await server.admin("staff")
    staff_id = await new_staff(admin, 2)

    changed = await admin.patch(
        f"/admin/staff/{staff_id}",
        json={"full_name": "Grace H.", "level": None, "status": None},
    )

    assert changed.json["full_name"] == "Grace H."
    assert (changed.json["level"], changed.json["status"]) == (2, "active")


async def test_lists_run_from_the_newest_to_the_oldest(server: Server) -> None:
    admin = await server.admin("staff")
    for number in range(5):
        await new_staff(admin, name=f"member{number}")

    first = (await admin.get("/admin/staff", params={"limit": 3})).json
    rest = await admin.get("/admin/staff", params={"cursor": first["next_cursor"]})
    wrong = await admin.get("/admin/staff", params={"cursor": "x"})

    pages = [*first["items"], *rest.json["items"]]
    assert [s["username"] for s in pages] == [f"member{n}" for n in (4, 3, 2, 1, 0)]
    assert rest.json["next_cursor"] is None
    assert wrong.json["errors"][0]["path"] == "cursor"


async def test_ended_sessions_are_purged_with_their_tokens(server: Server) -> None:
    await server.admin(name="root")
    await server.staff(1)
    database: Database = server.runtime.database
    async with database.unit_of_work() as session:
        old = utcnow() - timedelta(days=31)
        of_admins = DeskSession.admin_id.is_not(None)
        await session.execute(
            update(DeskSession).where(of_admins).values(revoked_at=old)
        )

    await server.runtime.desk.purge(database)

    async with database.unit_of_work(read_only=True) as session:
        left = (await session.scalars(select(DeskSession))).one()
        tokens = (await session.scalars(select(DeskRefreshToken))).one()
        assert left.staff_id is not None
        assert tokens.session_id == left.id


async def test_an_outdated_hash_of_the_desk_is_rewritten(
    serve: Any, database: Database
) -> None:
    """TRUST P2."""
    for rounds in ("4", "5"):
        async with serve(BCRYPT_ROUNDS=rounds) as server:
            await server.admin(name="root")
            await server.staff(1, name="root")

    async with database.unit_of_work(read_only=True) as session:
        hashes = [
            *await session.scalars(select(Admin.password_hash)),
            *await session.scalars(select(SupportStaff.password_hash)),
        ]
    assert [h.startswith("bcrypt_sha256$$2b$05$") for h in hashes] == [True, True]
