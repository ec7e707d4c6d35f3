"""Accounts that are deleted, restored, erased (TRUST D3, T4)."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from typing import Any
from uuid import UUID
from zipfile import ZipFile

import pytest
from sqlalchemy import func, select, update

from app.core.database import Database, utcnow
from app.core.exceptions import ConflictError, NotFoundError
from app.core.passwords import NO_PASSWORD
from app.models import Chat, DeletedUser, Message, User, UserSession
from app.schemas.account import Restoration
from app.services import job as jobs
from app.services.account import export
from app.services.audit import Actor
from app.services.authorization import Principal
from tests.client import Client
from tests.conftest import Server
from tests.fakes.openai import FakeOpenAI
from tests.integration.rows import Rows, settled, stored, traces

PASSWORD = "a long pass phrase"
ADMIN = Actor("admin", UUID(int=7), "192.0.2.1")
MODEL = "openai/fake-small"
ADDRESS = "ada@example.com"
CHANGED_BY_DELETION = {
    "deleted_users", "jobs", "mail_links", "login_counters", "audit_events",
    "audit_chain",
}  # fmt: skip


@dataclass
class Account:
    """Ada, with a chat that is shared; nothing of hers is still to be written."""

    client: Client
    id: UUID
    chat: str
    link: str

    @property
    def traces(self) -> list[object]:
        """What would tell of her: her id, her name, what she wrote."""
        return [self.id, ADDRESS, "Lovelace", "zebrafish"]


async def make_account(server: Server) -> Account:
    client = await server.client("ada")
    await client.patch("/users/me", json={"full_name": "Ada Lovelace"})
    chat = await client.chat(title="On zebrafish", system_prompt="Love zebrafish.")
    reply = await client.reply(chat, "Does the zebrafish sleep?")
    rating = {"value": 1, "comment": "Fine zebrafish."}
    await client.put(f"/messages/{reply['id']}/rating", json=rating)
    link = (await client.post(f"/chats/{chat}/share")).json["token"]
    me = (await client.get("/users/me")).json
    await settled(server)
    return Account(client, UUID(me["id"]), chat, link)


@pytest.fixture
async def ada(server: Server) -> Account:
    return await make_account(server)


async def delete_own(client: Client, password: str = PASSWORD, **fields: str) -> Any:
    return await client.delete("/users/me", json={"password": password, **fields})


async def deleted(server: Server, account: Account) -> None:
    assert (await delete_own(account.client)).status == 204


async def restore(server: Server, user_id: UUID, **form: Any) -> None:
    async with server.runtime.database.unit_of_work() as session:
        await server.runtime.accounts.restore(
            session, ADMIN, user_id, Restoration(**form)
        )


async def exported(server: Server, account: Account) -> bytes:
    """Her export without a session: that of a login would be another each time."""
    principal = Principal(account.id, UUID(int=0))
    runtime = server.runtime
    pieces = export.content(
        runtime.database, runtime.storage, runtime.principals, principal
    )
    return b"".join([piece async for piece in pieces])


_LOGINS = {"user_sessions", "refresh_tokens"}
HELD_BY_PROCESSES = {"credit_accounts", "credit_entries", "credit_holders",
                     "credit_leases", "usage_days"}  # fmt: skip
"""What the books write of themselves, whoever does what."""


def lasting(rows: Rows) -> Rows:
    """Without what a deletion and a restoration leave of themselves."""
    return {
        key: row
        for key, row in rows.items()
        if key[0] not in CHANGED_BY_DELETION | HELD_BY_PROCESSES | _LOGINS
    }


async def test_who_deletes_their_account_can_do_nothing_with_it_any_more(
    server: Server, ada: Account
) -> None:
    """TRUST D3, T4."""
    elsewhere = server.anonymous()
    await elsewhere.login(ADDRESS, PASSWORD)

    answer = await delete_own(ada.client, reason="I am moving on.")

    assert answer.status == 204
    for client in (ada.client, elsewhere):
        assert (await client.get("/users/me")).status == 401
        token = {"refresh_token": client.tokens["refresh_token"]}
        assert (await client.post("/auth/refresh", json=token)).status == 401
    for login in (ADDRESS, "ada", f"deleted:{ada.id}"):
        again = {"login": login, "password": PASSWORD}
        refused = await server.anonymous().post("/auth/login", json=again)
        assert (refused.status, refused.json["code"]) == (401, "invalid_credentials")


async def test_the_password_is_needed(server: Server, ada: Account) -> None:
    before = lasting(await stored(server.runtime.database))

    wrong = await delete_own(ada.client, "not the pass phrase")
    none = await ada.client.delete("/users/me", json={})

    assert (wrong.status, none.status) == (422, 422)
    assert [e["path"] for e in wrong.json["errors"]] == ["password"]
    assert lasting(await stored(server.runtime.database)) == before
    assert (await ada.client.get("/users/me")).status == 200


async def test_who_has_no_password_needs_a_fresh_login(
    server: Server, ada: Account
) -> None:
    """TRUST T5. As those whom another identity provider lets in."""
    async with server.runtime.database.unit_of_work() as session:
        await session.execute(update(User).values(password_hash=NO_PASSWORD))
    await _logged_in(server, ago=timedelta(hours=1))
    stale = await ada.client.delete("/users/me", json={})
    assert (stale.status, stale.json["code"]) == (403, "fresh_login_required")

    await _logged_in(server, ago=timedelta(minutes=1))
    assert (await ada.client.delete("/users/me", json={})).status == 204


async def _logged_in(server: Server, *, ago: timedelta) -> None:
    async with server.runtime.database.unit_of_work() as session:
        found = await session.scalars(
            update(UserSession)
            .values(authenticated_at=utcnow() - ago)
            .returning(UserSession.id)
        )
        server.runtime.principals.forget(*found)


async def test_what_is_left_of_a_deleted_account_names_nobody(
    server: Server, ada: Account
) -> None:
    """TRUST D1, D3."""
    await delete_own(ada.client, reason="I am moving on.")

    database = server.runtime.database
    # The mail that tells them of it, which lies in `jobs` for some days.
    assert await traces(database, [ADDRESS]) == {"jobs.args"}
    assert await traces(database, ["Lovelace", "moving on"]) == set()
    async with database.unit_of_work(read_only=True) as session:
        user = await session.get_one(User, ada.id)
        kept = await session.get_one(DeletedUser, ada.id)
    assert user.status == "deleted"
    assert (user.username, user.full_name) == (None, None)
    assert user.password_hash == NO_PASSWORD
    assert (kept.deleted_by, kept.deleted_by_id) == ("user", ada.id)
    assert kept.purge_at - kept.deleted_at == timedelta(days=30)


async def test_what_a_deleted_user_shared_is_hidden_until_they_are_back(
    server: Server, ada: Account
) -> None:
    """TRUST D3."""
    anybody = server.anonymous()
    shown = await anybody.get(f"/shared/{ada.link}")
    await deleted(server, ada)
    hidden = await anybody.get(f"/shared/{ada.link}")
    await restore(server, ada.id)

    assert (shown.status, hidden.status) == (200, 404)
    assert (await anybody.get(f"/shared/{ada.link}")).body == shown.body


async def test_a_running_reply_and_its_streams_end_with_the_account(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    """TRUST D3, T4."""
    fake_openai.plan.chunk_delay = 0.01
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client("ada")
        chat = await client.chat(model=MODEL, title="Named")
        async with asyncio.timeout(10), client.asking(chat, "Say 5000 words") as stream:
            await stream.words(3)
            assert (await delete_own(client)).status == 204
            events = await stream.all()
            await _until_no_turn_runs(server)

        async with server.runtime.database.unit_of_work(read_only=True) as session:
            reply = await session.scalar(
                select(Message).where(Message.role == "assistant")
            )
        assert events[-1].name == "error"
        assert events[-1].data["problem"]["code"] == "unauthenticated"
        assert reply is not None
        assert reply.status == "stopped"
        assert reply.text


async def _until_no_turn_runs(server: Server) -> None:
    while server.runtime.turns.running:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.005)


async def test_a_turn_that_began_in_the_last_moment_is_ended_by_a_job(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    """TRUST D3. It was authorised before the account's end, and stored after it."""
    fake_openai.plan.chunk_delay = 0.01
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client("ada")
        user_id = UUID((await client.get("/users/me")).json["id"])
        chat = await client.chat(model=MODEL, title="Named")
        async with asyncio.timeout(10), client.asking(chat, "Say 5000 words") as stream:
            await stream.words(3)
            database = server.runtime.database
            async with database.unit_of_work() as session:
                # All of a deletion but what ends turns.
                await session.execute(update(User).values(status="deleted"))
                jobs.enqueue(session, "account.end_turns", user_id=str(user_id))
            await _until_no_turn_runs(server)


async def test_a_new_account_with_the_address_inherits_nothing(
    server: Server, ada: Account
) -> None:
    """TRUST D3."""
    await deleted(server, ada)

    again = await server.client("ada")

    me = (await again.get("/users/me")).json
    assert me["id"] != str(ada.id)
    assert (me["email"], me["username"]) == (ADDRESS, "ada")
    assert me["full_name"] is None
    assert (await again.get("/chats")).json["items"] == []
    assert (await again.get("/chats", params={"q": "zebrafish"})).json["items"] == []
    assert (await again.get(f"/chats/{ada.chat}")).status == 404
    newcomer = Account(again, UUID(me["id"]), "", "")
    assert b"zebrafish" not in await exported(server, newcomer)
    sessions = (await again.get("/auth/sessions")).json["items"]
    assert [one["current"] for one in sessions] == [True]


async def test_a_restored_account_is_what_it_was_to_the_byte(
    server: Server, ada: Account
) -> None:
    """TRUST D3."""
    before = await stored(server.runtime.database)
    sessions = {UserSession.__tablename__}
    export_before = files(await exported(server, ada))

    await deleted(server, ada)
    await restore(server, ada.id)

    after = await stored(server.runtime.database)
    export_after = files(await exported(server, ada))
    assert lasting(after) == lasting(before)
    changed = {
        name for name in export_before if export_before[name] != export_after[name]
    }
    changed -= {f"{name}.jsonl" for name in HELD_BY_PROCESSES}
    assert changed == {f"{name}.jsonl" for name in sessions}
    assert export_after.keys() == export_before.keys()
    # Its sessions stay ended; the password is what it was.
    assert (await ada.client.get("/users/me")).status == 401
    await ada.client.login(ADDRESS, PASSWORD)
    assert (await ada.client.get(f"/chats/{ada.chat}")).status == 200


def files(archive: bytes) -> dict[str, bytes]:
    with ZipFile(BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return {name: opened.read(name) for name in opened.namelist()}


async def test_an_address_that_is_taken_again_hinders_the_restoration(
    server: Server, ada: Account
) -> None:
    await deleted(server, ada)
    again = await server.client("ada")

    with pytest.raises(ConflictError, match="delete that account first") as refused:
        await restore(server, ada.id)
    assert refused.value.code == "email_taken"

    assert (await delete_own(again)).status == 204
    await restore(server, ada.id)
    await ada.client.login(ADDRESS, PASSWORD)
    assert (await ada.client.get(f"/chats/{ada.chat}")).status == 200


async def test_a_name_that_is_taken_again_is_replaced(
    server: Server, ada: Account
) -> None:
    await deleted(server, ada)
    other = {"email": "other@example.com", "password": PASSWORD, "username": "ada"}
    assert (await server.anonymous().post("/auth/register", json=other)).status == 201

    with pytest.raises(ConflictError, match="another `username`") as refused:
        await restore(server, ada.id)
    assert refused.value.code == "username_taken"

    await restore(server, ada.id, username="ada-l")
    await ada.client.login("ada-l", PASSWORD)


async def test_who_has_no_name_is_restored_beside_others_without_one(
    server: Server,
) -> None:
    clients = []
    for number in range(2):
        form = {"email": f"user{number}@example.com", "password": PASSWORD}
        client = server.anonymous()
        assert (await client.post("/auth/register", json=form)).status == 201
        await client.login(form["email"], PASSWORD)
        clients.append(client)
    user_id = UUID((await clients[0].get("/users/me")).json["id"])
    assert (await delete_own(clients[0])).status == 204

    await restore(server, user_id)

    await clients[0].login("user0@example.com", PASSWORD)


async def test_only_what_is_deleted_can_be_restored_or_erased(
    server: Server, ada: Account
) -> None:
    for nobody in (ada.id, UUID(int=1)):
        with pytest.raises(NotFoundError):
            await restore(server, nobody)
        with pytest.raises(NotFoundError):
            await server.runtime.erasure.erase(ADMIN, nobody)

    assert (await ada.client.get("/users/me")).status == 200


async def test_an_erasure_leaves_nothing_but_a_pseudonym_in_the_audit(
    server: Server, ada: Account
) -> None:
    """TRUST D3."""
    database = server.runtime.database
    other = await server.client("grace")
    other_chat = await other.chat(title="Grace's own")
    await settled(server)
    others = lasting(await stored(database))
    assert await traces(database, ada.traces) > {"users.id", "messages.content"}
    async with database.unit_of_work() as session:  # as mail for her would stand there
        jobs.enqueue(
            session, "chat.title", chat_id=ADDRESS, run_at=utcnow() + timedelta(1)
        )
    await deleted(server, ada)

    report = await server.runtime.erasure.erase(ADMIN, ada.id)

    assert await traces(database, ada.traces[1:]) == set()
    assert await traces(database, [ada.id]) == {
        "audit_events.actor_id",
        "audit_events.target_id",
        "credit_entries.user_id",
        "usage_days.user_id",
    }
    hers = hanging_on(others, ada)
    assert lasting(await stored(database)) == {
        key: row for key, row in others.items() if key not in hers
    }
    assert (await other.get(f"/chats/{other_chat}")).status == 200
    assert report.rows["chats"] == 1
    assert report.rows["messages"] == 2
    assert report.backups_expire_at - report.erased_at == timedelta(days=30)
    assert report.tuned_models == []


async def test_who_is_deleted_is_told_and_an_erasure_takes_the_letter_back(
    server: Server, ada: Account
) -> None:
    """TRUST D3."""
    grace = await server.client("grace")
    folder = server.runtime.settings.server.data_dir / "mail"
    await deleted(server, ada)
    assert (await delete_own(grace)).status == 204
    await settled(server)
    letters = {path: path.read_text() for path in folder.glob("*.eml")}
    hers = {path for path, text in letters.items() if f"To: {ADDRESS}" in text}
    assert [p for p in hers if "account at Workroom was deleted" in letters[p]]

    await server.runtime.erasure.erase(ADMIN, ada.id)

    assert set(folder.glob("*.eml")) == letters.keys() - hers
    assert letters.keys() - hers


def hanging_on(rows: Rows, account: Account) -> set[tuple[Any, ...]]:
    """The keys of all rows that name the account, or name a row that does."""
    ids, found = {account.id}, set[tuple[Any, ...]]()
    while True:
        more = {
            key
            for key, row in rows.items()
            if ids & {value for value in row.values() if isinstance(value, UUID)}
        }
        if more == found:
            return found
        found = more
        ids |= {key[1] for key in found}


async def test_the_audit_tells_it_all_and_of_nobody(
    server: Server, ada: Account
) -> None:
    """TRUST D2, D3."""
    await deleted(server, ada)
    await restore(server, ada.id)
    await ada.client.login(ADDRESS, PASSWORD)
    await deleted(server, ada)
    await server.runtime.erasure.erase(ADMIN, ada.id)

    rows = await stored(server.runtime.database)
    events = [row for (table, *_), row in rows.items() if table == "audit_events"]
    about_her = [event for event in events if event["target_id"] == ada.id]
    about_her.sort(key=lambda event: event["seq"])
    assert [event["action"] for event in about_her] == [
        "user.register",
        "user.delete",
        "user.restore",
        "user.delete",
        "erasure.request",
        "user.erase",
    ]
    *emptied, report = about_her
    assert [event["details"] for event in emptied] == [None] * len(emptied)
    assert report["details"]["after"]["rows"]["users"] == 1


async def test_what_is_past_its_date_is_erased_and_the_rest_is_not(
    server: Server, ada: Account
) -> None:
    """TRUST D3."""
    grace = await server.client("grace")
    grace_id = UUID((await grace.get("/users/me")).json["id"])
    await deleted(server, ada)
    assert (await delete_own(grace)).status == 204
    await _age(server.runtime.database, ada.id)

    await server.runtime.erasure.purge()

    async with server.runtime.database.unit_of_work(read_only=True) as session:
        left = (await session.scalars(select(DeletedUser.id))).all()
    assert left == [grace_id]
    assert await traces(server.runtime.database, ada.traces[1:]) == set()


async def _age(database: Database, user_id: UUID) -> None:
    async with database.unit_of_work() as session:
        await session.execute(
            update(DeletedUser)
            .where(DeletedUser.id == user_id)
            .values(purge_at=utcnow() - timedelta(seconds=1))
        )


async def test_what_is_past_its_date_cannot_be_restored(
    server: Server, ada: Account
) -> None:
    await deleted(server, ada)
    await _age(server.runtime.database, ada.id)

    with pytest.raises(NotFoundError):
        await restore(server, ada.id)


async def test_an_erasure_that_broke_off_is_ended_by_the_next_purge(
    server: Server, ada: Account
) -> None:
    """TRUST D3. A person's chats are more than one batch of it."""
    database = server.runtime.database
    async with database.unit_of_work() as session:
        session.add_all(
            Chat(user_id=ada.id, title=f"zebrafish {n}", model="guide/manual")
            for n in range(250)
        )
    await deleted(server, ada)
    erasing = asyncio.create_task(server.runtime.erasure.erase(ADMIN, ada.id))
    while await _chats(database) > 200:  # noqa: ASYNC110 - the database tells
        await asyncio.sleep(0)
    erasing.cancel()
    with suppress(asyncio.CancelledError):
        await erasing

    await server.runtime.erasure.purge()

    assert await traces(database, ada.traces[1:]) == set()
    async with database.unit_of_work(read_only=True) as session:
        assert await session.get(User, ada.id) is None


async def _chats(database: Database) -> int:
    async with database.unit_of_work(read_only=True) as session:
        return await session.scalar(select(func.count()).select_from(Chat)) or 0


async def test_one_account_that_cannot_be_erased_stops_no_other(
    server: Server, ada: Account
) -> None:
    """What was sealed by a lost key is erased all the same."""
    database = server.runtime.database
    await deleted(server, ada)
    async with database.unit_of_work() as session:
        await session.execute(
            update(DeletedUser).values(sealed="lost", purge_at=utcnow())
        )

    await server.runtime.erasure.purge()

    async with database.unit_of_work(read_only=True) as session:
        assert (await session.scalars(select(DeletedUser))).all() == []


async def test_an_archived_account_is_kept_and_cannot_be_used(
    server: Server, ada: Account
) -> None:
    """TRUST T4."""
    database = server.runtime.database
    before = lasting(await stored(database))
    async with database.unit_of_work() as session:
        await server.runtime.accounts.archive(session, ADMIN, ada.id)

    assert (await ada.client.get("/users/me")).status == 401
    refused = {"login": ADDRESS, "password": PASSWORD}
    assert (await server.anonymous().post("/auth/login", json=refused)).status == 401
    assert (await server.anonymous().get(f"/shared/{ada.link}")).status == 404
    taken = {"email": ADDRESS, "password": PASSWORD}
    assert (await server.anonymous().post("/auth/register", json=taken)).status == 409
    after = lasting(await stored(database))
    key = ("users", ada.id)
    assert after[key].pop("status") == "archived"
    for row in (before[key], after[key]):
        row.pop("status", None)
        row.pop("updated_at")
    assert after == before


@pytest.mark.parametrize("reliable", [True, False], ids=["redis", "redis gone"])
async def test_an_account_ends_on_every_server(
    serve: Any, redis_url: str, tmp_path: Any, *, reliable: bool
) -> None:
    """TRUST T4: within a second, with Redis or without it."""
    url = redis_url if reliable else f"unix://{tmp_path}/no-redis.sock"
    async with serve(REDIS_URL=url) as one, serve(REDIS_URL=url) as other:
        ada = await make_account(one)
        away = other.anonymous()
        away.use(ada.client.tokens)
        assert (await away.get("/users/me")).status == 200

        await deleted(one, ada)

        async with asyncio.timeout(1):
            while (await away.get("/users/me")).status != 401:  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(0.01)
