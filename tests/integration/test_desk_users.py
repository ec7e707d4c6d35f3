"""Users as the desk looks after them: found, made, suspended, let in again."""

import asyncio
import re
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app.api.deps import PageQuery
from app.core.database import Database
from app.models import AuditEvent, Job, MailLink, User
from app.services.desk import users
from tests.client import Client
from tests.conftest import Server
from tests.fakes.openai import FakeOpenAI

PASSWORD = "a long pass phrase"
CSV = {"Content-Type": "text/csv"}


async def fill(database: Database, count: int, **fields: Any) -> None:
    async with database.unit_of_work() as session:
        for number in range(count):
            name = f"user{number:03}"
            session.add(
                User(
                    **{
                        "email": f"{name}@example.com",
                        "username": name,
                        "password_hash": "!",
                    }
                    | fields
                )
            )
            await session.flush()  # in this order, not sorted by their keys


async def names(client: Client, path: str = "/admin/users", **params: Any) -> list[str]:
    answer = await client.get(path, params=params)
    assert answer.status == 200, answer.body
    return [user["username"] for user in answer.json["items"]]


async def id_of(client: Client) -> str:
    return str((await client.get("/auth/me")).json["id"])


async def actions(database: Database) -> list[tuple[str, str]]:
    async with database.unit_of_work(read_only=True) as session:
        found = await session.execute(
            select(AuditEvent.actor_kind, AuditEvent.action)
            .where(AuditEvent.action.like("user.%"))
            .order_by(AuditEvent.seq)
        )
        return [(kind, action) for kind, action in found]


@pytest.mark.parametrize("path", ["/admin/users", "/staff/users"])
async def test_users_are_listed_from_the_newest_to_the_oldest(
    server: Server, path: str
) -> None:
    client = await (server.admin("users") if "admin" in path else server.staff(1))
    await fill(server.runtime.database, 25)

    first = (await client.get(path)).json
    rest = (await client.get(path, params={"cursor": first["next_cursor"]})).json

    listed = [user["username"] for user in (*first["items"], *rest["items"])]
    assert listed == [f"user{number:03}" for number in reversed(range(25))]
    assert (len(first["items"]), rest["next_cursor"]) == (20, None)
    assert "password" not in str(first)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("user00", ["user001", "user000"]),
        ("USER001@EXAMPLE", ["user001"]),
        ("user001@example.com", ["user001"]),
        ("zoe", ["Zoë's"]),
        ("zoë", []),
        ("ser00", []),
        ("%", []),
        ("user00_", []),
        ("' OR 1=1 --", []),
    ],
)
async def test_a_search_finds_what_begins_so(
    server: Server, query: str, found: list[str]
) -> None:
    admin = await server.admin("users")
    await fill(server.runtime.database, 2)
    await fill(server.runtime.database, 1, email="zoe@example.com", username="Zoë's")

    assert await names(admin, q=query) == found


async def test_the_search_reads_along_an_index(database: Database) -> None:
    """A million accounts cost no more than a thousand: no table is read through."""
    await fill(database, 50)
    async with database.unit_of_work() as session:
        await session.execute(select(1))
        found = users._matches(session, "user00", None, PageQuery())
        statement = found.compile(
            dialect=session.get_bind().dialect, compile_kwargs={"literal_binds": True}
        )
        connection = await session.connection()
        if database.is_sqlite:
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")
        else:
            await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            plan = await connection.exec_driver_sql(f"EXPLAIN {statement}")
        lines = "\n".join(str(row) for row in plan)

    assert "SCAN users" not in lines
    assert "Seq Scan" not in lines
    if database.is_sqlite:
        assert lines.count("SEARCH users USING") == 2, lines
    else:
        assert "ix_users_beginning_email" in lines
        assert "ix_users_beginning_username" in lines


async def test_a_list_shows_one_status(server: Server) -> None:
    admin = await server.admin("users")
    await fill(server.runtime.database, 3)
    async with server.runtime.database.unit_of_work() as session:
        for name, status in (("user000", "suspended"), ("user001", "deleted")):
            await session.execute(
                update(User).where(User.username == name).values(status=status)
            )

    assert await names(admin) == ["user002", "user000"]
    assert await names(admin, status="suspended") == ["user000"]
    assert await names(admin, status="deleted") == ["user001"]
    assert await names(admin, q="user", status="active") == ["user002"]


async def test_a_deleted_user_is_not_there(server: Server) -> None:
    admin = await server.admin("users")
    user = await server.client()
    path = f"/admin/users/{await id_of(user)}"
    gone = await user.request("DELETE", "/users/me", json={"password": PASSWORD})

    assert gone.status == 204
    assert (await admin.get(path)).status == 404
    assert (await admin.post(f"{path}/suspend")).status == 404
    assert (await admin.post(f"{path}/activate")).status == 404


async def test_a_suspension_ends_sessions_and_running_replies_at_once(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    """TRUST T4."""
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        staff, user = await server.staff(3), await server.client()
        user_id = await id_of(user)
        chat = await user.chat(model="openai/fake-small")
        fake_openai.plan.chunk_delay = 0.05
        async with user.asking(chat, "Say 500 words") as stream:
            await stream.until("delta")
            suspended = await staff.post(f"/staff/users/{user_id}/suspend")
            ending = await stream.all()

        assert suspended.json["status"] == "suspended"
        assert ending[-1].name == "error"
        assert (await user.get("/auth/me")).status == 401
        form = {"login": "ada", "password": PASSWORD}
        assert (await user.post("/auth/login", json=form)).status == 401
        async with asyncio.timeout(10):
            while server.runtime.turns.running:  # noqa: ASYNC110 - a turn's end has no event
                await asyncio.sleep(0.01)


async def test_who_is_activated_logs_in_again_and_old_tokens_stay_dead(
    server: Server,
) -> None:
    """TRUST T4."""
    admin, user = await server.admin("users"), await server.client()
    path = f"/admin/users/{await id_of(user)}"
    await admin.post(f"{path}/suspend")

    activated = await admin.post(f"{path}/activate")

    assert activated.json["status"] == "active"
    assert (await user.get("/auth/me")).status == 401
    form = {"refresh_token": user.tokens["refresh_token"]}
    assert (await user.post("/auth/refresh", json=form)).status == 401
    await user.login("ada", PASSWORD)
    changes = [("admin", "user.suspend"), ("admin", "user.activate")]
    assert [a for a in await actions(server.runtime.database) if a in changes] == (
        changes
    )


@pytest.mark.parametrize("action", ["suspend", "activate"])
async def test_what_is_done_already_is_a_conflict(server: Server, action: str) -> None:
    admin, user = await server.admin("users"), await server.client()
    path = f"/admin/users/{await id_of(user)}"
    if action == "suspend":
        await admin.post(f"{path}/suspend")

    again = await admin.post(f"{path}/{action}")

    assert (again.status, again.json["code"]) == (409, "wrong_status")


async def test_an_admin_makes_an_account_with_a_password(server: Server) -> None:
    admin = await server.admin("users")
    form = {"email": "Eve@example.com", "username": "eve", "password": PASSWORD}

    made = await admin.post("/admin/users", json=form)
    again = await admin.post("/admin/users", json=form)
    weak = await admin.post("/admin/users", json=form | {"password": "password1"})

    assert (made.status, made.json["email"]) == (201, "eve@example.com")
    assert (again.status, again.json["code"]) == (409, "email_taken")
    assert (weak.status, weak.json["errors"][0]["path"]) == (422, "password")
    await server.anonymous().login("eve", PASSWORD)
    assert ("admin", "user.create") in await actions(server.runtime.database)


@pytest.mark.parametrize("password", ["", "!", PASSWORD])
async def test_an_account_without_a_password_lets_nobody_in(
    server: Server, password: str
) -> None:
    admin = await server.admin("users")
    await admin.post("/admin/users", json={"email": "eve@example.com"})

    form = {"login": "eve@example.com", "password": password}
    assert (await admin.post("/auth/login", json=form)).status == 401


async def test_many_accounts_are_made_of_a_file(server: Server) -> None:
    admin = await server.admin("users")
    file = (
        "\ufefffull_name,email,username\r\n"
        '"Lovelace, Ada",Ada@example.com,ada\r\n'
        "'=cmd(),bob@example.com,\r\n"
        ",eve@example.com,eve\r\n"
    )

    done = await admin.post("/admin/users/import", data=file.encode(), headers=CSV)

    assert (done.status, done.json) == (201, {"created": 3})
    listed = (await admin.get("/admin/users")).json["items"]
    assert {(u["email"], u["username"], u["full_name"]) for u in listed} == {
        ("ada@example.com", "ada", "Lovelace, Ada"),
        ("bob@example.com", None, "=cmd()"),
        ("eve@example.com", "eve", None),
    }
    assert (await actions(server.runtime.database)).count(("admin", "user.create")) == 3


@pytest.mark.parametrize(
    ("file", "paths"),
    [
        ("", ["body"]),
        ("name\nx\n", ["body", "rows.1.name"]),
        ("email,password\na@b.c,x\n", ["rows.1.password"]),
        ("email,email\na@x.org,b@x.org\n", ["rows.1.email"]),
        ("email\nno address\n", ["rows.2.email"]),
        ("email,username\na@x.org,a b\nb@x.org,\n", ["rows.2.username"]),
        ("email\nnew@x.org\nNEW@x.org\n", ["rows.3.email"]),
        ("email,username\nada@example.com,ada\n", ["rows.2.email", "rows.2.username"]),
        ("email\na@x.org,b\n", ["rows.2.row"]),
        ('email\n"a@x.org\n', ["body"]),
        (b"email\n\xff\n", ["body"]),
    ],
    ids=str,
)
async def test_a_file_with_anything_wrong_makes_no_account(
    server: Server, file: str | bytes, paths: list[str]
) -> None:
    admin = await server.admin("users")
    await server.client("ada")
    data = file if isinstance(file, bytes) else file.encode()

    refused = await admin.post("/admin/users/import", data=data, headers=CSV)

    assert refused.status == 422
    assert [e["path"] for e in refused.json["errors"]] == paths
    assert await names(admin) == ["ada"]


async def test_who_forgot_a_password_does_not_wait_behind_many_invitations(
    server: Server,
) -> None:
    admin = await server.admin("users")
    await server.client("ada")
    file = "email\n" + "".join(f"new{n:03}@example.com\n" for n in range(200))
    await admin.post("/admin/users/import", data=file.encode(), headers=CSV)
    form = {"email": "ada@example.com"}
    await server.anonymous().post("/auth/forgot-password", json=form)

    async with server.runtime.database.unit_of_work(read_only=True) as session:
        links = {str(link.id): link for link in await session.scalars(select(MailLink))}
        jobs = await session.scalars(
            select(Job).where(Job.name == "link.mail").order_by(Job.run_at)
        )
        order = [links[job.args["link_id"]].purpose for job in jobs]

    assert order.count("invite") == 200
    assert order.index("reset") < 100


async def test_json_is_no_file_and_the_answer_says_so(server: Server) -> None:
    admin = await server.admin("users")

    refused = await admin.post("/admin/users/import", json=[{"email": "a@x.org"}])

    assert refused.status == 422
    assert refused.json["errors"] == [
        {"path": "body", "message": "must be the file itself: tell its Content-Type"}
    ]


async def test_the_export_is_the_whole_list_and_no_formula(server: Server) -> None:
    """TRUST D2: more than one chunk, and names that a spreadsheet would run."""
    admin = await server.admin("users")
    await fill(server.runtime.database, 501)
    await fill(
        server.runtime.database,
        1,
        email="mallory@example.com",
        username="mallory",
        full_name="=HYPERLINK(0)",
    )

    answer = await admin.get("/admin/users/export")

    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    lines = answer.body.decode().splitlines()
    assert lines[0].startswith("id,email,")
    assert len(lines) == 503
    assert ",'=HYPERLINK(0)," in lines[1]
    assert "user000@example.com" in lines[-1]
    few = await admin.get("/admin/users/export", params={"q": "mal"})
    assert len(few.body.decode().splitlines()) == 2


async def test_who_has_no_password_is_invited_and_invited_again(
    serve: Any, tmp_path: Path
) -> None:
    """TRUST A2: the owner chooses the password; the desk never does."""
    async with serve() as server:
        admin, staff = await server.admin("users"), await server.staff(2)
        made = await admin.post("/admin/users", json={"email": "eve@example.com"})
        first = await mail_to(tmp_path, "eve@example.com", 1)
        path = f"/staff/users/{made.json['id']}/resend"
        assert (await staff.post(path)).status == 202
        second = await mail_to(tmp_path, "eve@example.com", 2)

        tokens = [re.findall(r"#token=([\w-]+)", text)[-1] for text in (first, second)]
        form = {"token": tokens[1], "password": PASSWORD}
        chosen = await server.anonymous().post("/auth/reset-password", json=form)

        assert chosen.status == 204
        await server.anonymous().login("eve@example.com", PASSWORD)
        again = {"token": tokens[0], "password": "another pass phrase"}
        refused = await server.anonymous().post("/auth/reset-password", json=again)
        assert refused.status == 422


async def mail_to(folder: Path, address: str, count: int) -> str:
    """The text of the `count`th mail to an address, once it is there."""
    async with asyncio.timeout(20):
        while True:
            files = sorted(
                (folder / "mail").glob("*.eml"), key=lambda f: f.stat().st_mtime_ns
            )
            texts = [message_from_bytes(f.read_bytes(), policy=default) for f in files]
            mine = [m for m in texts if address in str(m["To"])]
            if len(mine) >= count:
                body = mine[count - 1].get_body(("plain",))
                assert body is not None
                return str(body.get_content())
            await asyncio.sleep(0.05)


async def test_a_locked_account_is_unlocked_by_staff_of_level_two(
    serve: Any,
) -> None:
    """TRUST P4."""
    async with serve(LOCKOUT_FAILURES="3") as server:
        staff = await server.staff(2)
        made = await server.anonymous().post(
            "/auth/register",
            json={"email": "ada@example.com", "password": PASSWORD, "username": "ada"},
        )
        right = {"login": "ada", "password": PASSWORD}
        for _ in range(3):
            await server.anonymous().post("/auth/login", json=right | {"password": "x"})
        locked = await server.anonymous().post("/auth/login", json=right)

        done = await staff.post(f"/staff/users/{made.json['id']}/unlock")

        assert (locked.status, done.status) == (401, 200)
        await server.anonymous().login("ada", PASSWORD)
        assert ("staff", "user.unlock") in await actions(server.runtime.database)
