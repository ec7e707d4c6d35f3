"""Deleted accounts at the desk (TRUST A2, D2, D3)."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.core.anchor import Anchor
from app.models import AuditEvent, DeletedUser, User
from app.services.audit import SYSTEM, checking
from tests.client import Client
from tests.conftest import Server

PASSWORD = "a long pass phrase"


async def id_of(client: Client) -> str:
    return str((await client.get("/users/me")).json["id"])


async def add_deleted(server: Server, *emails: str) -> list[UUID]:
    """Users of these addresses, deleted one after the other."""
    ids = []
    async with server.runtime.database.unit_of_work() as session:
        for email in emails:
            user = User(email=email, password_hash="")
            session.add(user)
            await session.flush()
            await server.runtime.accounts.delete(session, SYSTEM, user.id)
            ids.append(user.id)
    return ids


async def listed(client: Client, **query: Any) -> list[str]:
    answer = await client.get("/admin/deleted-users", params=query)
    assert answer.status == 200, answer.body
    return [item["email"] for item in answer.json["items"]]


async def test_an_admin_deletes_restores_and_erases(server: Server) -> None:
    """TRUST D2, D3: the audit tells it all, and its chain verifies."""
    admin, ada = await server.admin("users"), await server.client("ada")
    user_id = await id_of(ada)

    gone = await admin.post(
        f"/admin/users/{user_id}/delete", json={"reason": "They asked for it."}
    )
    assert gone.status == 200
    assert gone.json["email"] == "ada@example.com"
    assert gone.json["reason"] == "They asked for it."
    assert gone.json["deleted_by"] == "admin"
    assert (await ada.get("/users/me")).status == 401
    assert (await admin.get("/admin/deleted-users")).json["items"] == [gone.json]

    back = await admin.post(f"/admin/deleted-users/{user_id}/restore")
    assert back.status == 204
    await ada.login("ada@example.com", PASSWORD)

    assert (await admin.post(f"/admin/users/{user_id}/delete")).status == 200
    report = await admin.post(f"/admin/deleted-users/{user_id}/erase")
    assert report.status == 200
    assert report.json["rows"]["users"] == 1
    assert report.json["tuned_models"] == []
    assert await listed(admin) == []
    again = await admin.post(f"/admin/deleted-users/{user_id}/restore")
    assert (again.status, again.json["code"]) == (404, "not_found")
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        events = await session.scalars(
            select(AuditEvent)
            .where(AuditEvent.target_id == UUID(user_id))
            .order_by(AuditEvent.seq)
        )
        told = [event.action for event in events]
    assert told == [
        "user.register",
        "user.delete",
        "user.restore",
        "user.delete",
        "erasure.request",
        "user.erase",
    ]
    await verify_chain(server)


async def verify_chain(server: Server) -> None:
    runtime = server.runtime
    anchor = Anchor(runtime.settings.server.data_dir)
    found = await checking.check(runtime.database, runtime.crypto, anchor)
    assert found.anchored
    assert found.faults == []


async def test_a_deleted_user_is_no_user_any_more(server: Server) -> None:
    admin = await server.admin("users")
    (gone,) = await add_deleted(server, "ada@example.com")

    for path in ("delete", "archive"):
        answer = await admin.post(f"/admin/users/{gone}/{path}")
        assert (answer.status, answer.json["code"]) == (404, "not_found")


async def test_staff_of_level_three_restore(server: Server) -> None:
    staff, ada = await server.staff(3), await server.client("ada")
    user_id = await id_of(ada)
    deletion = {"password": PASSWORD}
    assert (await ada.delete("/users/me", json=deletion)).status == 204

    found = await staff.get("/staff/deleted-users", params={"email": "ADA@example.com"})
    assert [item["id"] for item in found.json["items"]] == [user_id]
    path = f"/staff/deleted-users/{user_id}/restore"
    assert (await staff.post(path)).status == 204

    await ada.login("ada@example.com", PASSWORD)


async def test_the_list_is_paged_the_last_deleted_first(server: Server) -> None:
    admin = await server.admin("users")
    emails = [f"user{n}@example.com" for n in range(5)]
    await add_deleted(server, *emails)

    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = (await admin.get("/admin/deleted-users", params=query)).json
        seen += [item["email"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]

    assert seen == emails[::-1]
    assert await listed(admin, offset=1, limit=2) == seen[1:3]


async def test_all_that_had_an_address_are_found(server: Server) -> None:
    admin = await server.admin("users")
    names = ["ada", "grace", "ada", "ada.l"]
    await add_deleted(server, *(f"{name}@example.com" for name in names))

    assert await listed(admin, email="ada@example.com") == ["ada@example.com"] * 2
    assert await listed(admin, email="nobody@example.com") == []


async def test_a_cursor_of_another_list_is_refused(server: Server) -> None:
    admin = await server.admin("users")

    answer = await admin.get("/admin/deleted-users", params={"cursor": "wrong"})

    assert answer.status == 422
    assert [e["path"] for e in answer.json["errors"]] == ["cursor"]


async def test_one_whose_key_is_lost_is_listed_and_can_be_erased(
    server: Server,
) -> None:
    admin = await server.admin("users")
    (gone,) = await add_deleted(server, "ada@example.com")
    async with server.runtime.database.unit_of_work() as session:
        await session.execute(update(DeletedUser).values(sealed="lost"))

    (item,) = (await admin.get("/admin/deleted-users")).json["items"]
    assert (item["id"], item["email"]) == (str(gone), None)
    assert (await admin.post(f"/admin/deleted-users/{gone}/erase")).status == 200


@pytest.mark.parametrize("username", ["x", "with space", ""])
async def test_a_name_for_the_restored_must_be_one(
    server: Server, username: str
) -> None:
    admin = await server.admin("users")
    (gone,) = await add_deleted(server, "ada@example.com")

    path = f"/admin/deleted-users/{gone}/restore"
    answer = await admin.post(path, json={"username": username})

    assert answer.status == 422
    assert [e["path"] for e in answer.json["errors"]] == ["username"]
