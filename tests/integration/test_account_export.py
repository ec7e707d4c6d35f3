"""The export of all that one owns (TRUST D2, D3)."""

import json
from io import BytesIO
from typing import Any
from uuid import UUID
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from app.core.exceptions import UnauthenticatedError
from app.models import Base, Chat, Message
from app.services.account import export, holdings
from app.services.authorization import Principal
from tests.client import Answer, Client
from tests.conftest import Server

PASSWORD = "a long pass phrase"


def files(answer: Answer) -> dict[str, bytes]:
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/zip"
    assert (
        answer.headers["Content-Disposition"] == 'attachment; filename="workroom.zip"'
    )
    assert answer.headers["Cache-Control"] == "no-store"
    with ZipFile(BytesIO(answer.body)) as archive:
        assert archive.testzip() is None
        assert {i.compress_type for i in archive.infolist()} <= {ZIP_DEFLATED}
        return {name: archive.read(name) for name in archive.namelist()}


def rows(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines()]


async def exported(client: Client) -> dict[str, bytes]:
    return files(await client.get("/users/me/export"))


async def test_it_holds_all_that_one_owns_and_nothing_of_others(
    server: Server,
) -> None:
    """TRUST D3."""
    ada, grace = await server.client("ada"), await server.client("grace")
    for client, name in ((ada, "ada"), (grace, "grace")):
        chat = await client.chat(title=f"Chat of {name}: ../../etc")
        reply = await client.reply(chat, f"Who is {name}?")
        rating = {"value": -1, "comment": "Too short."}
        await client.put(f"/messages/{reply['id']}/rating", json=rating)
        await client.post(f"/chats/{chat}/share")

    found = await exported(ada)

    names = {n.removesuffix(".jsonl") for n in found if n.endswith(".jsonl")}
    assert names >= {"users", "user_sessions", "chats", "messages", "chat_shares"}
    assert names <= holdings.OWNED.keys()
    (user,) = rows(found["users.jsonl"])
    assert user["email"] == "ada@example.com"
    question, reply = rows(found["messages.jsonl"])
    assert question["content"] == [{"type": "text", "text": "Who is ada?"}]
    assert (reply["rating"], reply["rating_comment"]) == (-1, "Too short.")
    (page,) = (name for name in found if name.startswith("chats/"))
    assert page.endswith(".md")
    assert ".." not in page
    assert b"Who is ada?" in found[page]
    assert b"grace" not in b"".join(found.values())


async def test_it_holds_no_secret(server: Server) -> None:
    """TRUST D2."""
    ada = await server.client("ada")
    chat = await ada.chat()
    await ada.reply(chat, "Hello?")
    link = (await ada.post(f"/chats/{chat}/share")).json["token"]

    told = b"".join((await exported(ada)).values()).decode()

    assert "bcrypt" not in told
    tokens = (link, ada.tokens["access_token"], ada.tokens["refresh_token"])
    assert not [token for token in tokens if token in told]
    hidden = {column for how in holdings.OWNED.values() for column in how.hidden}
    assert not [name for name in hidden if f'"{name}"' in told]


async def test_two_exports_of_the_same_are_the_same_bytes(server: Server) -> None:
    ada = await server.client("ada")
    await ada.reply(await ada.chat(title="Named"), "Hello?")
    await server.runtime.credits.flush()

    first = await ada.get("/users/me/export")
    second = await ada.get("/users/me/export")

    assert first.body == second.body


async def test_whoever_owns_much_gets_all_of_it(server: Server) -> None:
    """More than a batch of each."""
    ada = await server.client("ada")
    me = UUID((await ada.get("/users/me")).json["id"])
    async with server.runtime.database.unit_of_work() as session:
        chats = [
            Chat(user_id=me, title=f"Chat {n}", model="guide/manual") for n in range(50)
        ]
        session.add_all(chats)
        await session.flush()
        session.add_all(
            Message(chat_id=chat.id, role="user", content=[])
            for chat in chats
            for _ in range(3)
        )

    found = await exported(ada)

    assert len(rows(found["chats.jsonl"])) == 50
    messages = rows(found["messages.jsonl"])
    assert len({message["id"] for message in messages}) == 150
    assert len([name for name in found if name.startswith("chats/")]) == 50


async def test_a_new_account_exports_itself_alone(server: Server) -> None:
    found = await exported(await server.client("ada"))

    assert found.keys() == {"users.jsonl", "user_sessions.jsonl"}


async def test_what_is_deleted_meanwhile_is_left_out(server: Server) -> None:
    ada = await server.client("ada")
    me = UUID((await ada.get("/users/me")).json["id"])
    session_id = UUID((await ada.get("/auth/sessions")).json["items"][0]["id"])
    chat = await ada.chat(title="Short lived")
    await ada.reply(chat, "Hello?")
    runtime = server.runtime
    principal = Principal(me, session_id)
    pieces = export.content(
        runtime.database, runtime.storage, runtime.principals, principal
    )
    begun = await anext(pieces)

    assert (await ada.delete(f"/chats/{chat}")).status == 204

    rest = b"".join([piece async for piece in pieces])
    with ZipFile(BytesIO(begun + rest)) as archive:
        assert archive.testzip() is None
        assert "messages.jsonl" not in archive.namelist()


async def test_it_ends_with_its_session(server: Server) -> None:
    """TRUST T4."""
    ada = await server.client("ada")
    me = UUID((await ada.get("/users/me")).json["id"])
    session_id = UUID((await ada.get("/auth/sessions")).json["items"][0]["id"])
    runtime = server.runtime
    principal = Principal(me, session_id)
    pieces = export.content(
        runtime.database, runtime.storage, runtime.principals, principal
    )
    assert await anext(pieces)

    token = {"refresh_token": ada.tokens["refresh_token"]}
    assert (await ada.post("/auth/logout", json=token)).status == 204

    with pytest.raises(UnauthenticatedError):
        await anext(pieces)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_an_export_ends_where_its_reader_leaves(
    server: Server,
) -> None:
    ada = await server.client("ada")
    me = UUID((await ada.get("/users/me")).json["id"])
    runtime = server.runtime
    principal = Principal(me, UUID(int=0))
    pieces = export.content(
        runtime.database, runtime.storage, runtime.principals, principal
    )
    assert await anext(pieces)

    await pieces.aclose()

    assert runtime.principals._followers == {}


def test_every_table_is_exported_or_says_why_not() -> None:
    """TRUST D3."""
    for name, how in holdings.OWNED.items():
        assert name in Base.metadata.tables
        assert how.not_exported is None or len(how.not_exported.split()) > 1
