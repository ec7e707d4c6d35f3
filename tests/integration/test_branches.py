"""The tree of messages: editing, regenerating, switching, deleting, rating, forking."""

from typing import Any

import pytest
from sqlalchemy import insert, select
from uuid_utils.compat import uuid7

from app.core.database import Database, utcnow
from app.models import Chat, Message
from tests.client import Client
from tests.conftest import Server
from tests.fakes.openai import FakeOpenAI

MODEL = "openai/fake-small"


async def leaf_of(client: Client, chat: str) -> Any:
    return (await client.get(f"/chats/{chat}")).json["leaf_id"]


async def regenerated(client: Client, message_id: str, **fields: Any) -> dict[str, Any]:
    answer = await client.post(
        f"/messages/{message_id}/regenerate", json={"stream": False, **fields}
    )
    assert answer.status == 201, answer.body
    return dict(answer.json)


async def edited(client: Client, message_id: str, content: str) -> dict[str, Any]:
    answer = await client.patch(
        f"/messages/{message_id}", json={"content": content, "stream": False}
    )
    assert answer.status == 201, answer.body
    return dict(answer.json)


async def test_a_regenerated_reply_stands_beside_the_first(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    first = await client.reply(chat, "Hello")

    second = await regenerated(client, first["id"])
    third = await regenerated(client, first["id"])

    ids = [first["id"], second["id"], third["id"]]
    assert first["sibling_ids"] == [first["id"]]
    assert third["sibling_ids"] == ids
    assert {m["parent_id"] for m in (first, second, third)} == {first["parent_id"]}
    assert await leaf_of(client, chat) == third["id"]
    page = await client.messages(chat)
    assert [m["id"] for m in page] == [third["id"], first["parent_id"]]
    assert page[0] == third
    assert (await client.get(f"/messages/{first['id']}")).json["sibling_ids"] == ids


async def test_an_edited_message_begins_a_branch_beside_it(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    first = await client.reply(chat, "Hello")
    second = await client.reply(chat, "And?")

    inner = await edited(client, second["parent_id"], "But?")
    inner_page = await client.messages(chat)
    outer = await edited(client, first["parent_id"], "Good bye")
    outer_page = await client.messages(chat)

    assert [m["text"] for m in inner_page if m["role"] == "user"] == ["But?", "Hello"]
    assert inner_page[1]["sibling_ids"] == [second["parent_id"], inner["parent_id"]]
    assert [m["id"] for m in outer_page] == [outer["id"], outer["parent_id"]]
    assert outer_page[1]["parent_id"] is None
    assert outer_page[1]["sibling_ids"] == [first["parent_id"], outer["parent_id"]]
    whole = await client.get(f"/messages/{second['parent_id']}")
    assert whole.json["text"] == "And?"


async def test_edits_and_regenerations_stream_like_messages(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    first = await client.reply(chat, "Hello")

    for method, path, body in (
        ("PATCH", f"/messages/{first['parent_id']}", {"content": "Hi"}),
        ("POST", f"/messages/{first['id']}/regenerate", None),
    ):
        async with client.stream(method, path, json=body) as stream:
            events = await stream.all()
        assert events[0].name == "message_start"
        assert events[-1].name == "message_stop"
        last = events[-1].data["message"]
        assert (await client.get(f"/messages/{last['id']}")).json == last
        assert len(last["sibling_ids"]) == (1 if method == "PATCH" else 2)


async def test_only_users_messages_are_edited_and_only_replies_regenerated_and_rated(
    server: Server,
) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    reply = await client.reply(chat, "Hello")
    question = reply["parent_id"]

    for answer in (
        await client.patch(f"/messages/{reply['id']}", json={"content": "x"}),
        await client.post(f"/messages/{question}/regenerate"),
        await client.put(f"/messages/{question}/rating", json={"value": 1}),
    ):
        assert answer.status == 400
        assert answer.json["code"] == "bad_request"
    assert len(await client.messages(chat)) == 2


async def test_branches_are_written_beside_each_other_but_a_reply_not_twice(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        first = await client.reply(chat, "Say 3 words")
        fake_openai.plan.faults = ["stall"]
        async with client.asking(chat, "Say 50 words") as stream:
            events = await stream.until("delta")
            running = events[0].data["message_id"]
            question = events[0].data["user_message_id"]

            beside = await regenerated(client, first["id"])
            other = await edited(client, question, "Say 4 words")
            refused = await client.post(f"/messages/{running}/regenerate")
            below = await client.post(
                f"/chats/{chat}/messages", json={"content": "x", "parent_id": running}
            )
            assert server.runtime.turns.running == 1

    assert beside["status"] == other["status"] == "complete"
    for answer in (refused, below):
        assert answer.status == 409
        assert answer.json["code"] == "turn_in_progress"
        assert answer.json["message_id"] == running


async def test_the_shown_branch_is_switched_down_to_its_newest_leaf(
    server: Server,
) -> None:
    client = await server.client()
    chat, other = await client.chat(title="a"), await client.chat(title="b")
    first = await client.reply(chat, "Hello")
    second = await client.reply(chat, "And?")
    third = await edited(client, first["parent_id"], "Hi")
    before = (await client.get(f"/chats/{chat}")).json

    switched = await client.patch(
        f"/chats/{chat}", json={"leaf_id": first["parent_id"]}
    )
    stranger = await client.patch(f"/chats/{other}", json={"leaf_id": first["id"]})

    assert before["leaf_id"] == third["id"]
    assert switched.json["leaf_id"] == second["id"]
    assert switched.json["updated_at"] == before["updated_at"]
    assert (await client.messages(chat))[0]["id"] == second["id"]
    assert stranger.status == 404
    assert await leaf_of(client, other) is None
    fourth = await client.reply(chat, "More")
    page = await client.messages(chat)
    assert [m["id"] for m in page][::2] == [fourth["id"], second["id"], first["id"]]


async def test_a_message_is_deleted_with_all_below_it(
    server: Server, database: Database
) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    first = await client.reply(chat, "Hello")
    second = await client.reply(chat, "And?")
    await regenerated(client, second["id"])

    deleted = await client.delete(f"/messages/{second['parent_id']}")

    assert deleted.status == 204
    assert await leaf_of(client, chat) == first["id"]
    assert len(await client.messages(chat)) == 2
    for gone in (second["id"], second["parent_id"]):
        assert (await client.get(f"/messages/{gone}")).status == 404
    await client.delete(f"/messages/{first['parent_id']}")
    assert await leaf_of(client, chat) is None
    async with database.unit_of_work(read_only=True) as session:
        assert (await session.scalars(select(Message))).all() == []
    assert (await client.reply(chat, "Again"))["status"] == "complete"


async def test_deleting_a_message_ends_the_reply_below_it(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        first = await client.reply(chat, "Say 3 words")
        fake_openai.plan.faults = ["stall"]
        async with client.asking(chat, "Say 50 words") as stream:
            events = await stream.until("delta")
            question = events[0].data["user_message_id"]
            assert (await client.delete(f"/messages/{question}")).status == 204
            events = await stream.all()
        assert await leaf_of(client, chat) == first["id"]

    assert events[-1].name == "error"
    assert events[-1].data["problem"]["status"] == 404


async def test_a_chat_of_any_depth_is_deleted(
    server: Server, database: Database
) -> None:
    """SQLite cascades through at most 1000 levels."""
    client = await server.client()
    chat = await client.chat(title="Deep")
    async with database.unit_of_work() as session:
        row = (await session.scalars(select(Chat))).one()
        ids = [uuid7() for _ in range(2500)]
        await session.execute(
            insert(Message),
            [
                {"id": one, "chat_id": row.id, "parent_id": above, "role": "user"}
                for one, above in zip(ids, [None, *ids], strict=False)
            ],
        )
        row.leaf_id = ids[-1]

    copy = await client.post(f"/chats/{chat}/fork")
    cut = await client.delete(f"/messages/{ids[400]}")

    assert copy.status == 201
    assert cut.status == 204
    assert await leaf_of(client, chat) == str(ids[399])
    for one in (chat, copy.json["id"]):
        assert (await client.delete(f"/chats/{one}")).status == 204


async def test_a_reply_is_rated_and_the_rating_taken_back(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    reply = await client.reply(chat, "Hello")
    path = f"/messages/{reply['id']}"

    rated = await client.put(f"{path}/rating", json={"value": -1, "comment": "Wrong"})
    shown = (await client.messages(chat))[0]
    back = await client.put(f"{path}/rating", json={"value": 0})
    wrong = await client.put(f"{path}/rating", json={"value": 2})

    assert reply["rating"] == 0
    assert rated.status == 200
    assert rated.json == shown
    assert (shown["rating"], shown["rating_comment"]) == (-1, "Wrong")
    assert (back.json["rating"], back.json["rating_comment"]) == (0, None)
    assert wrong.status == 422


async def test_a_fork_is_a_copy_of_one_branch_that_lives_by_itself(
    server: Server,
) -> None:
    client = await server.client()
    chat = await client.chat(title="First", system_prompt="Be brief.")
    first = await client.reply(chat, "Hello")
    await client.reply(chat, "And?")
    await client.put(f"/messages/{first['id']}/rating", json={"value": 1})

    whole = await client.post(f"/chats/{chat}/fork")
    part = await client.post(
        f"/chats/{chat}/fork", json={"message_id": first["id"], "title": "Second"}
    )
    await client.delete(f"/chats/{chat}")

    assert whole.status == part.status == 201
    assert whole.json["title"] == "First"
    assert part.json["title"] == "Second"
    assert part.json["system_prompt"] == "Be brief."
    assert len(await client.messages(whole.json["id"])) == 4
    reply, question = await client.messages(part.json["id"])
    assert reply["id"] == part.json["leaf_id"] != first["id"]
    assert (reply["text"], reply["citations"]) == (first["text"], first["citations"])
    assert (reply["credits"], reply["usage"], reply["rating"]) == (0, None, 0)
    assert question["text"] == "Hello"
    assert question["parent_id"] is None
    search = await client.get("/chats", params={"q": "hello second"})
    assert [c["id"] for c in search.json["items"]] == [part.json["id"]]
    assert (await client.reply(part.json["id"], "More"))["status"] == "complete"


async def test_a_fork_takes_only_messages_of_its_chat_that_are_written(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    fake_openai.plan.faults = ["stall"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        empty = await client.chat(title="Empty")
        chat = await client.chat(model=MODEL, title="Named")
        async with client.asking(chat, "Say 50 words") as stream:
            events = await stream.until("delta")
            question = events[0].data["user_message_id"]
            running = await client.post(f"/chats/{chat}/fork")
            asked = await client.post(
                f"/chats/{chat}/fork", json={"message_id": question}
            )
        foreign = await client.post(
            f"/chats/{empty}/fork", json={"message_id": question}
        )
        of_nothing = await client.post(f"/chats/{empty}/fork")

    assert running.status == 409
    assert running.json["code"] == "turn_in_progress"
    assert asked.status == of_nothing.status == 201
    assert foreign.status == 404
    assert of_nothing.json["leaf_id"] is None


async def test_pinned_chats_come_first_and_page_without_gaps(server: Server) -> None:
    client = await server.client()
    ids = [await client.chat(title=str(n)) for n in range(5)]
    before = (await client.get(f"/chats/{ids[1]}")).json["updated_at"]
    for n in (1, 3):
        pinned = await client.patch(f"/chats/{ids[n]}", json={"pinned": True})
        assert pinned.json["pinned"]
    assert (await client.get(f"/chats/{ids[1]}")).json["updated_at"] == before

    paged: list[str] = []
    params = {"limit": "1"}
    while True:
        page = (await client.get("/chats", params=params)).json
        paged += [c["id"] for c in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]

    assert paged == [ids[n] for n in (3, 1, 4, 2, 0)]


@pytest.mark.parametrize("hours", [23, 25])
async def test_a_temporary_chat_is_listed_nowhere_and_goes_after_a_day(
    server: Server, database: Database, hours: int
) -> None:
    from datetime import timedelta

    from app.services.chat import chats

    client = await server.client()
    kept = await client.chat(title="Kept")
    chat = await client.chat(temporary=True)
    await client.ask(chat, "Hello")
    assert [c["id"] for c in (await client.get("/chats")).json["items"]] == [kept]
    assert (await client.get(f"/chats/{chat}/export")).status == 200
    async with database.unit_of_work() as session:
        for row in await session.scalars(select(Chat)):
            assert row.title in {"Kept", None}
            row.updated_at = utcnow() - timedelta(hours=hours)
    await chats.purge(database)

    assert (await client.get(f"/chats/{chat}")).status == (200 if hours < 24 else 404)
    assert (await client.get(f"/chats/{kept}")).status == 200
