"""Projects over HTTP: who is in them, and what that lets them see."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.models import Project
from app.services.account import holdings
from app.services.audit import SYSTEM
from tests.client import Answer, Client
from tests.conftest import Server
from tests.integration.rows import settled
from tests.integration.test_account_export import files

SECRET = "The zanzibar protocol begins at dawn."


async def project_of(client: Client, **fields: Any) -> str:
    made = await client.post("/projects", json={"name": "A project", **fields})
    assert made.status == 201
    return str(made.json["id"])


async def paste(client: Client, project: str, text: str = SECRET) -> str:
    """A document that is found."""
    form = {"title": "A note", "text": text}
    added = await client.post(f"/projects/{project}/documents", json=form)
    assert added.status == 201, added.json
    path = f"/projects/{project}/documents/{added.json['id']}"
    while (await client.get(path)).json["state"] != "ready":  # noqa: ASYNC110 - the server tells
        await asyncio.sleep(0.01)
    return str(added.json["id"])


async def invite(owner: Client, project: str, name: str, role: str = "viewer") -> str:
    form = {"username": name, "role": role}
    added = await owner.post(f"/projects/{project}/members", json=form)
    assert added.status == 201, added.json
    return str(added.json["user_id"])


async def search(client: Client, project: str, q: str = "zanzibar") -> Answer:
    return await client.get(f"/projects/{project}/search", params={"q": q})


async def texts(client: Client, project: str, q: str = "zanzibar") -> Sequence[str]:
    found = await search(client, project, q)
    assert found.status == 200
    return [item["text"] for item in found.json["items"]]


async def user_id(client: Client) -> UUID:
    return UUID((await client.get("/auth/me")).json["id"])


# Projects ---------------------------------------------------------------------------


async def test_a_project_is_made_read_changed_listed_and_deleted(
    server: Server,
) -> None:
    ada = await server.client()
    form = {
        "name": " Moon ",
        "instructions": "Be exact.",
        "token_limit": 9000,
        "context_mode": "full",
    }

    made = await ada.post("/projects", json=form)

    expected = {**form, "name": "Moon", "archived": False, "role": "owner"}
    expected |= {"documents": 0, "tokens": 0}
    assert {name: made.json[name] for name in expected} == expected
    path = f"/projects/{made.json['id']}"
    assert (await ada.get(path)).json == made.json
    changed = await ada.patch(path, json={"token_limit": None, "name": None})
    assert (changed.json["token_limit"], changed.json["name"]) == (None, "Moon")
    assert [p["id"] for p in (await ada.get("/projects")).json["items"]] == [
        made.json["id"]
    ]
    assert (await ada.delete(path)).status == 204
    assert (await ada.get(path)).status == 404
    assert (await ada.get("/projects")).json["items"] == []


async def test_what_a_project_cannot_be_is_refused(server: Server) -> None:
    ada = await server.client()

    for wrong in (
        {},
        {"name": " "},
        {"name": "x", "context_mode": "some"},
        {"name": "x", "token_limit": -1},
        {"name": "x" * 201},
    ):
        assert (await ada.post("/projects", json=wrong)).status == 422, wrong


async def test_archived_projects_stand_in_a_list_of_their_own(server: Server) -> None:
    ada = await server.client()
    old, new = await project_of(ada), await project_of(ada)
    await ada.patch(f"/projects/{old}", json={"archived": True})

    shown = await ada.get("/projects")
    archived = await ada.get("/projects", params={"archived": "true"})

    assert [p["id"] for p in shown.json["items"]] == [new]
    assert [p["id"] for p in archived.json["items"]] == [old]


async def test_a_call_that_is_sent_twice_makes_one_document(server: Server) -> None:
    ada = await server.client()
    project = await project_of(ada)
    form = {"json": {"title": "A", "text": "b"}, "headers": {"Idempotency-Key": "one"}}

    first = await ada.post(f"/projects/{project}/documents", **form)
    second = await ada.post(f"/projects/{project}/documents", **form)

    assert second.json == first.json
    assert second.headers["Idempotency-Replayed"] == "true"
    listed = await ada.get(f"/projects/{project}/documents")
    assert [d["id"] for d in listed.json["items"]] == [first.json["id"]]


# Members ----------------------------------------------------------------------------


async def test_each_role_may_do_what_it_is_for(server: Server) -> None:
    ada, bob, eve = [await server.client(name) for name in ("ada", "bob", "eve")]
    project = await project_of(ada)
    document = await paste(ada, project)
    await invite(ada, project, "bob", "editor")
    eve_id = await invite(ada, project, "eve", "viewer")
    path = f"/projects/{project}"
    text = {"title": "B", "text": "c"}
    calls: list[tuple[str, str, dict[str, Any], str]] = [
        ("GET", path, {}, "viewer"),
        ("GET", f"{path}/members", {}, "viewer"),
        ("GET", f"{path}/documents", {}, "viewer"),
        ("GET", f"{path}/documents/{document}", {}, "viewer"),
        ("GET", f"{path}/search?q=dawn", {}, "viewer"),
        ("PATCH", path, {"name": "Ours"}, "editor"),
        ("POST", f"{path}/documents", text, "editor"),
        ("PATCH", f"{path}/documents/{document}", {"title": "C"}, "editor"),
        ("DELETE", f"{path}/documents/{document}", {}, "editor"),
        ("POST", f"{path}/members", {"username": "ada"}, "owner"),
        ("PATCH", f"{path}/members/{eve_id}", {"role": "viewer"}, "owner"),
        ("DELETE", path, {}, "owner"),
    ]

    refused = {
        (name, method, where)
        for method, where, form, _least in calls
        for name, client in (("viewer", eve), ("editor", bob))
        if (await client.request(method, where, json=form or None)).status == 403
    }

    assert refused == {
        (name, method, where)
        for method, where, _form, least in calls
        for name in {"viewer": (), "editor": ("viewer",)}.get(
            least, ("viewer", "editor")
        )
    }
    assert (await ada.get(path)).json["name"] == "Ours"


async def test_members_are_found_by_address_or_name_and_can_be_changed(
    server: Server,
) -> None:
    ada, _ = await server.client("ada"), await server.client("bob")
    project = await project_of(ada)
    path = f"/projects/{project}/members"

    added = await ada.post(path, json={"email": "bob@example.com"})
    again = await ada.post(path, json={"username": "bob"})
    oneself = await ada.post(path, json={"username": "ada"})
    nobody = await ada.post(path, json={"username": "carol"})
    both = await ada.post(path, json={"username": "bob", "email": "bob@example.com"})
    bob_id = added.json["user_id"]
    changed = await ada.patch(f"{path}/{bob_id}", json={"role": "editor"})
    owner = await ada.patch(f"{path}/{await user_id(ada)}", json={"role": "editor"})

    assert (added.status, again.status, oneself.status) == (201, 409, 409)
    assert (nobody.status, both.status) == (404, 422)
    assert (changed.json["role"], owner.status) == ("editor", 409)
    listed = (await ada.get(path)).json["items"]
    assert [(m["username"], m["role"]) for m in listed] == [
        ("ada", "owner"),
        ("bob", "editor"),
    ]


async def test_a_member_may_leave_and_an_owner_may_not(server: Server) -> None:
    ada, bob = await server.client("ada"), await server.client("bob")
    project = await project_of(ada)
    bob_id = await invite(ada, project, "bob")
    path = f"/projects/{project}"

    stays = await ada.delete(f"{path}/members/{await user_id(ada)}")
    leaves = await bob.delete(f"{path}/members/{bob_id}")

    assert (stays.status, stays.json["code"]) == (409, "owner_stays")
    assert leaves.status == 204
    assert (await bob.get(path)).status == 404
    assert (await ada.delete(f"{path}/members/{bob_id}")).status == 404


async def test_nothing_of_a_project_reaches_who_is_not_in_it(server: Server) -> None:
    """TRUST A1. A removed member loses it with the next request."""
    ada, bob, eve = [await server.client(name) for name in ("ada", "bob", "eve")]
    project = await project_of(ada, name="Project Zanzibar")
    document = await paste(ada, project)
    bob_id = await invite(ada, project, "bob", "editor")
    # What eve has of her own says nothing of it.
    own = await project_of(eve)
    await paste(eve, own, "Of other things.")
    assert await texts(bob, project) == [SECRET]

    await ada.delete(f"/projects/{project}/members/{bob_id}")

    for stranger in (bob, eve):
        for where in (
            f"/projects/{project}",
            f"/projects/{project}/members",
            f"/projects/{project}/documents",
            f"/projects/{project}/documents/{document}",
            f"/projects/{project}/search?q=zanzibar",
        ):
            assert (await stranger.get(where)).status == 404, where
        listed = await stranger.get("/projects")
        chats = await stranger.get("/chats", params={"project_id": project})
        export = await stranger.get("/users/me/export")
        for answer in (listed, chats):
            assert b"anzibar" not in answer.body
        assert "anzibar" not in content_of(export)
        bound = await stranger.post("/chats", json={"project_id": project})
        assert bound.status == 404
    assert await texts(eve, own) == []
    assert await texts(ada, project) == [SECRET]


def content_of(export: Answer) -> str:
    return "".join(content.decode() for content in files(export).values())


async def test_a_search_in_one_project_finds_nothing_of_another(
    server: Server,
) -> None:
    ada = await server.client()
    first, second = await project_of(ada), await project_of(ada)
    await paste(ada, first, "The same words, of the first.")
    await paste(ada, second, "The same words, of the second.")

    assert await texts(ada, first, "same words") == ["The same words, of the first."]
    assert await texts(ada, second, "same words") == ["The same words, of the second."]


# Chats ------------------------------------------------------------------------------


async def test_a_chat_can_be_bound_to_a_project_and_stays_its_owners(
    server: Server,
) -> None:
    ada, bob = await server.client("ada"), await server.client("bob")
    project = await project_of(ada)
    await invite(ada, project, "bob")
    await bob.chat(title="Free")
    chat = await bob.chat(title="Bound", project_id=project)

    bound = await bob.get("/chats", params={"project_id": project})
    found = await bob.get("/chats", params={"project_id": project, "q": "bound"})
    others = await ada.get("/chats", params={"project_id": project})

    assert [c["id"] for c in bound.json["items"]] == [chat]
    assert bound.json["items"][0]["project_id"] == project
    assert [c["id"] for c in found.json["items"]] == [chat]
    assert others.json["items"] == []
    assert (await ada.get(f"/chats/{chat}")).status == 404
    await ada.delete(f"/projects/{project}")
    assert (await bob.get(f"/chats/{chat}")).status == 200


# Accounts ---------------------------------------------------------------------------


async def test_a_deleted_owners_project_is_hidden_until_they_are_restored(
    server: Server,
) -> None:
    """TRUST D3."""
    ada, bob = await server.client("ada"), await server.client("bob")
    project = await project_of(ada)
    await paste(ada, project)
    await invite(ada, project, "bob")
    ada_id = await user_id(ada)
    admin = await server.admin("users")

    await ada.delete("/users/me", json={"password": "a long pass phrase"})

    assert (await search(bob, project)).status == 404
    assert (await bob.get("/projects")).json["items"] == []
    await admin.post(f"/admin/deleted-users/{ada_id}/restore")
    assert await texts(bob, project) == [SECRET]


async def test_a_deleted_member_is_not_listed(server: Server) -> None:
    """TRUST D3."""
    ada, bob = await server.client("ada"), await server.client("bob")
    project = await project_of(ada)
    await invite(ada, project, "bob")

    await bob.delete("/users/me", json={"password": "a long pass phrase"})

    listed = await ada.get(f"/projects/{project}/members")
    assert [m["username"] for m in listed.json["items"]] == ["ada"]


async def test_an_erasure_leaves_nothing_of_a_project(server: Server) -> None:
    """TRUST D3: neither text, nor passages, nor the words in the index."""
    ada, bob = await server.client("ada"), await server.client("bob")
    project = await project_of(ada, name="Zanzibar", instructions=SECRET)
    await paste(ada, project)
    await paste(ada, project, f"{SECRET} " * 900)
    await invite(ada, project, "bob")
    kept = await project_of(bob)
    await paste(bob, kept, "Of bob.")
    ada_id = await user_id(ada)
    await settled(server)
    await ada.delete("/users/me", json={"password": "a long pass phrase"})

    report = await server.runtime.erasure.erase(SYSTEM, ada_id)

    assert report.rows["project_documents"] == 2
    assert report.rows["postings"] > 0
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        for name in ("projects", "project_members", "project_documents", "chunks"):
            table = Project.metadata.tables[name]
            rows = (await session.execute(select(table))).all()
            assert "anzibar" not in str(rows)
            hers = select(table).where(holdings.owned_by(table, ada_id))
            assert (await session.execute(hers)).all() == []
        postings = Project.metadata.tables["postings"]
        left = (await session.execute(select(postings.c.chunk_id))).all()
    assert len(left) == len({"a", "note", "of", "bob"} - {"a", "of"})
    assert await texts(bob, kept, "bob") == ["Of bob."]


async def test_an_export_has_the_projects_that_one_owns(server: Server) -> None:
    ada = await server.client("ada")
    project = await project_of(ada, instructions="Be exact.")
    await paste(ada, project)

    export = await ada.get("/users/me/export")

    assert {"projects.jsonl", "project_documents.jsonl"} <= files(export).keys()
    assert SECRET in content_of(export)


# Limits -----------------------------------------------------------------------------


async def test_a_project_takes_no_more_than_its_owners_plan_allows(
    server: Server,
) -> None:
    ada, bob = await server.client("ada"), await server.client("bob")
    project = await project_of(ada)
    await invite(ada, project, "bob", "editor")
    admin = await server.admin("users", "plans")
    limits = {"json": {"project_tokens": 100}}
    await admin.put(f"/admin/users/{await user_id(ada)}/limits", **limits)
    document = await paste(bob, project, "word " * 70)
    form = {"title": "More", "text": "word " * 70}

    refused = await bob.post(f"/projects/{project}/documents", json=form)
    grown = await bob.patch(
        f"/projects/{project}/documents/{document}", json={"text": "word " * 90}
    )

    assert (refused.status, refused.json["code"]) == (409, "project_full")
    assert (grown.status, grown.json["code"]) == (409, "project_full")
    assert (await ada.get(f"/projects/{project}")).json["documents"] == 1
    assert len(await texts(ada, project, "word")) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"title": "A"},
        {"text": "b"},
        {"title": "A", "text": " \n "},
        {"title": "A", "text": "b\0"},
        {"file_id": "01900000-0000-7000-8000-000000000000", "text": "b"},
    ],
)
async def test_a_document_without_a_text_is_refused(
    server: Server, wrong: dict[str, str]
) -> None:
    ada = await server.client()
    project = await project_of(ada)

    refused = await ada.post(f"/projects/{project}/documents", json=wrong)

    assert refused.status == 422
    assert "String should match" not in refused.json["detail"]
