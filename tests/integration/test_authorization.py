"""TRUST A1: every route with every kind of principal and a foreign owner's ids."""

from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from typing import Any
from uuid import UUID
from zipfile import ZipFile

import pytest
from sqlalchemy import select

from app.core.database import utcnow
from app.models import Base
from tests.client import Answer, Client
from tests.conftest import Server
from tests.integration.operations import (
    GUARDED,
    OPERATIONS,
    PRIVATE,
    PUBLIC,
    V1,
    listed_routes,
    routes_of,
    send,
)
from tests.integration.things import Things, make_things

Rows = dict[tuple[str, Any], tuple[Any, ...]]


async def all_rows(server: Server) -> Rows:
    """Everything that is stored, by table and key; what was used so far with it."""
    rows: Rows = {}
    await server.runtime.credits.flush()
    await server.runtime.search_index.settle()
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        for name, table in Base.metadata.tables.items():
            for row in await session.execute(select(table)):
                key = tuple(row._mapping[column.name] for column in table.primary_key)
                rows[name, key] = tuple(row)
    return {key: row for key, row in rows.items() if key[0] not in MOVING}


MOVING = {
    "jobs",
    "audit_chain",
    "mail_links",
    "login_counters",
    "credit_accounts",
    "credit_holders",
    "credit_leases",
    "credit_entries",
    "usage_days",
    "message_logs",
}
"""Tables whose rows change by what others do."""


def with_token(server: Server, token: str) -> Client:
    client = server.anonymous()
    client.headers["Authorization"] = f"Bearer {token}"
    return client


async def nobody(server: Server, _owner: Things) -> Client:
    return server.anonymous()


async def garbage(server: Server, _owner: Things) -> Client:
    return with_token(server, "garbage")


async def another_scheme(server: Server, owner: Things) -> Client:
    client = server.anonymous()
    client.headers["Authorization"] = f"Basic {owner.client.tokens['access_token']}"
    return client


async def refresh_token(server: Server, owner: Things) -> Client:
    return with_token(server, owner.client.tokens["refresh_token"])


async def expired_token(server: Server, owner: Things) -> Client:
    me = await owner.client.get("/auth/me")
    long_ago = utcnow() - timedelta(days=1)
    token = server.runtime.tokens.issue_access(
        account_id=UUID(me.json["id"]), session_id=UUID(owner.session), now=long_ago
    )
    return with_token(server, token)


async def ended_session(server: Server, owner: Things) -> Client:
    client = server.anonymous()
    await client.login(owner.email, "a long pass phrase")
    token = {"refresh_token": client.tokens["refresh_token"]}
    assert (await client.post("/auth/logout", json=token)).status == 204
    return client


async def token_of_no_session(server: Server, owner: Things) -> Client:
    """Well signed, but for a session of another user."""
    other = await make_things(server, "mallory")
    me = await other.client.get("/auth/me")
    token = server.runtime.tokens.issue_access(
        account_id=UUID(me.json["id"]), session_id=UUID(owner.session), now=utcnow()
    )
    return with_token(server, token)


STRANGERS = [
    nobody,
    garbage,
    another_scheme,
    refresh_token,
    expired_token,
    ended_session,
    token_of_no_session,
]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_every_route_is_classified(server: Server) -> None:
    assert routes_of(server.app) == listed_routes()


@pytest.mark.parametrize("stranger", STRANGERS)
async def test_who_is_not_logged_in_gets_401_everywhere(
    server: Server, stranger: Any
) -> None:
    owner = await make_things(server, "ada")
    client = await stranger(server, owner)
    before = await all_rows(server)

    answers = {o.name: await o.send(client, owner) for o in GUARDED}

    assert {name: a.status for name, a in answers.items()} == {
        operation.name: 401 for operation in GUARDED
    }
    for answer in answers.values():
        assert_problem(answer, {"unauthenticated", "token_expired"})
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert_tells_nothing(answer, owner)
    assert await all_rows(server) == before


async def test_who_is_not_logged_in_hears_nothing_of_what_else_is_wrong(
    server: Server,
) -> None:
    owner = await make_things(server, "ada")

    for operation in GUARDED:
        answer = await operation.send(
            server.anonymous(),
            owner,
            json={"wrong": []},
            data=None,
            params={"limit": "wrong"},
        )
        assert answer.status == 401, operation.name


@pytest.mark.parametrize("stranger", [nobody, garbage])
async def test_public_routes_need_no_token_and_ignore_a_wrong_one(
    server: Server, stranger: Any
) -> None:
    for number, operation in enumerate(PUBLIC):
        owner = await make_things(server, f"owner{number}")
        client = await stranger(server, owner)

        answer = await operation.send(client, owner)

        assert answer.status == operation.status, operation.name


async def test_another_users_things_are_not_there(server: Server) -> None:
    owner = await make_things(server, "ada")
    before = await all_rows(server)
    other = await make_things(server, "mallory")
    foreign = [o for o in PRIVATE if o.names_things]

    answers = {o.name: await o.send(other.client, owner) for o in foreign}

    assert {name: a.status for name, a in answers.items()} == {
        operation.name: 404 for operation in foreign
    }
    for answer in answers.values():
        assert_problem(answer, {"not_found"})
        assert_tells_nothing(answer, owner)
    await assert_kept(server, before)


async def test_another_users_thing_reads_like_one_that_never_was(
    server: Server,
) -> None:
    owner = await make_things(server, "ada")
    other = await make_things(server, "mallory")
    never = "01900000-0000-7000-8000-000000000000"
    made_up = replace(
        other,
        session=never,
        chat=never,
        question=never,
        reply=never,
        file=never,
        link=never,
        apikey=never,
        project=never,
        document=never,
        member=never,
    )

    for operation in PRIVATE:
        if operation.names_things:
            foreign = await operation.send(other.client, owner)
            missing = await operation.send(other.client, made_up)
            assert _without_id(foreign) == _without_id(missing), operation.name


async def test_what_names_nothing_shows_and_changes_only_ones_own(
    server: Server,
) -> None:
    owner = await make_things(server, "ada")
    before = await all_rows(server)

    for number, operation in enumerate(PRIVATE):
        if not operation.names_things:
            other = await make_things(server, f"mallory{number}")
            answer = await operation.send(other.client, other)
            assert answer.status == operation.status, operation.name
            assert_tells_nothing(answer, owner)
    await assert_kept(server, before)


async def test_a_foreign_id_inside_ones_own_request_is_not_found(
    server: Server,
) -> None:
    owner = await make_things(server, "ada")
    before = await all_rows(server)
    other = await make_things(server, "mallory")
    smuggled = [
        ("GET", "messages", {"params": {"leaf": owner.reply}}),
        ("GET", "messages", {"params": {"cursor": owner.reply}}),
        ("POST", "messages", {"json": {"content": "Hi", "parent_id": owner.reply}}),
        ("POST", "fork", {"json": {"message_id": owner.reply}}),
    ]

    smuggled = [
        (method, f"chats/{other.chat}/{rest}", request)
        for method, rest, request in smuggled
    ]
    project = f"projects/{other.project}"
    smuggled += [
        ("POST", "chats", {"json": {"project_id": owner.project}}),
        ("POST", f"{project}/documents", {"json": {"file_id": owner.file}}),
        ("GET", f"{project}/documents/{owner.document}", {}),
        ("PATCH", f"{project}/documents/{owner.document}", {"json": {"title": "Mine"}}),
        ("DELETE", f"{project}/documents/{owner.document}", {}),
        ("DELETE", f"{project}/members/{owner.user}", {}),
    ]

    for method, rest, request in smuggled:
        path = f"{V1}/{rest}"
        answer = await send(other.client, method, path, **request)
        assert answer.status == 404, (method, rest, request)
        assert_tells_nothing(answer, owner)
    await assert_kept(server, before)


async def test_an_owner_that_a_client_sends_is_ignored(server: Server) -> None:
    """A2."""
    owner = await make_things(server, "ada")
    user_id = (await owner.client.get("/auth/me")).json["id"]
    before = await all_rows(server)
    other = await make_things(server, "mallory")
    forged = {"user_id": user_id, "owner_id": user_id, "id": owner.chat}

    made = await other.client.post("/chats", json={"title": "Mine", **forged})
    moved = await other.client.patch(f"/chats/{other.chat}", json=forged)
    renamed = await other.client.patch("/users/me", json={"id": user_id})

    assert (made.status, moved.status, renamed.status) == (201, 200, 200)
    assert made.json["id"] != owner.chat
    assert moved.json["id"] == other.chat
    assert renamed.json["id"] != user_id
    mine = {chat["id"] for chat in (await other.client.get("/chats")).json["items"]}
    assert mine == {other.chat, made.json["id"]}
    await assert_kept(server, before)


async def test_the_owner_may(server: Server) -> None:
    """Else the table's requests would prove nothing about the others."""
    statuses = {}
    reader = await make_things(server, "reader")
    for number, operation in enumerate(OPERATIONS):
        reads = operation.method == "GET"
        owner = reader if reads else await make_things(server, f"owner{number}")
        client = operation.proper(owner)
        statuses[operation.name] = (await operation.send(client, owner)).status

    assert statuses == {operation.name: operation.status for operation in OPERATIONS}


_GATEWAY_TYPES = {
    401: {"authentication_error"},
    403: {"permission_error"},
    404: {"invalid_request_error", "not_found_error"},
}


def assert_problem(answer: Answer, codes: set[str]) -> None:
    if "error" in answer.json:  # in the format of the gateway's clients
        assert answer.json["error"]["type"] in _GATEWAY_TYPES[answer.status]
        return
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["code"] in codes


def assert_tells_nothing(answer: Answer, owner: Things) -> None:
    text = _text(answer)
    assert not {secret for secret in owner.secrets if secret in text}


def _text(answer: Answer) -> str:
    if answer.headers.get("Content-Type") != "application/zip":
        return answer.body.decode()
    with ZipFile(BytesIO(answer.body)) as archive:
        return "".join(archive.read(name).decode() for name in archive.namelist())


async def assert_kept(server: Server, before: Rows) -> None:
    after = await all_rows(server)
    assert {key: after.get(key) for key in before} == before


def _without_id(answer: Answer) -> tuple[int, dict[str, Any]]:
    return answer.status, answer.json | {"request_id": ""}
