"""Chats and messages over HTTP, beside the turns themselves."""

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import select

from app.core.database import Database, utcnow
from app.models import Chat, Message
from tests.client import text_of
from tests.conftest import Server
from tests.fakes.openai import FakeOpenAI
from tests.integration.branch import store_branch

GUIDE = "guide/manual"
MODEL = "openai/fake-small"


async def test_a_chat_is_created_read_changed_and_deleted(server: Server) -> None:
    client = await server.client()

    created = await client.post(
        "/chats", json={"title": " Plans ", "system_prompt": "Be brief."}
    )
    path = f"/chats/{created.json['id']}"
    renamed = await client.patch(path, json={"title": "New", "archived": True})
    read = await client.get(path)
    deleted = await client.delete(path)

    assert created.status == 201
    assert created.json["title"] == "Plans"
    assert created.json["model"] == GUIDE
    assert created.json["leaf_id"] is None
    assert renamed.json == read.json
    assert read.json["title"] == "New"
    assert read.json["archived"]
    assert read.json["system_prompt"] == "Be brief."
    assert deleted.status == 204
    assert (await client.get(path)).status == 404


async def test_what_a_patch_leaves_out_or_cannot_be_empty_stays(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title="Plans")

    answer = await client.patch(
        f"/chats/{chat}", json={"title": None, "model": None, "archived": None}
    )

    assert answer.status == 200
    assert answer.json["title"] is None
    assert answer.json["model"] == GUIDE
    assert not answer.json["archived"]


@pytest.mark.parametrize("method", ["post", "patch"])
async def test_an_unknown_model_is_refused_with_those_that_are_there(
    server: Server, method: str
) -> None:
    client = await server.client()
    path = "/chats" if method == "post" else f"/chats/{await client.chat()}"

    answer = await getattr(client, method)(path, json={"model": "guide/none"})

    assert answer.status == 400
    assert answer.json["code"] == "unknown_model"
    assert GUIDE in answer.json["detail"]


async def test_a_provider_that_is_not_set_up_names_its_variable(server: Server) -> None:
    client = await server.client()
    chat = await client.chat()

    answer = await client.post(
        f"/chats/{chat}/messages",
        json={"content": "Hello", "model": "bedrock/anthropic.claude"},
    )

    assert answer.status == 503
    assert answer.json["code"] == "provider_not_configured"
    assert "AWS_REGION" in answer.json["detail"]
    assert await client.messages(chat) == []


async def test_a_provider_that_does_not_answer_names_its_variable(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    url = fake_openai.base_url
    await fake_openai.close()
    async with serve(OPENAI_BASE_URL=url) as server:
        client = await server.client()
        answer = await client.post("/chats", json={"model": MODEL})

    assert answer.status == 503
    assert "OPENAI_BASE_URL" in answer.json["detail"]


async def test_the_list_runs_by_the_last_change_and_pages_without_gaps(
    server: Server, database: Database
) -> None:
    client = await server.client()
    ids = [await client.chat(title=str(n)) for n in range(7)]
    async with database.unit_of_work() as session:
        for chat in await session.scalars(select(Chat)):
            # Some share a time: the id decides between them.
            chat.updated_at = utcnow() - timedelta(hours=int(str(chat.title)) // 3)
    expected = (await client.get("/chats")).json["items"]

    paged: list[Any] = []
    cursor: str | None = None
    while True:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/chats", params=params)).json
        paged += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert {c["id"] for c in expected} == set(ids)
    assert paged == expected
    assert [c["updated_at"] for c in paged] == sorted(
        (c["updated_at"] for c in paged), reverse=True
    )
    skipped = await client.get("/chats", params={"offset": "5"})
    assert skipped.json["items"] == expected[5:]


async def test_archived_chats_are_listed_apart(server: Server) -> None:
    client = await server.client()
    kept, put_away = await client.chat(), await client.chat()
    await client.patch(f"/chats/{put_away}", json={"archived": True})

    normal = await client.get("/chats")
    archived = await client.get("/chats", params={"archived": "true"})

    assert [c["id"] for c in normal.json["items"]] == [kept]
    assert [c["id"] for c in archived.json["items"]] == [put_away]


@pytest.mark.parametrize("cursor", ["x", "%%%", "eA==", "MjAyNi0xMS0yMSB4"])
async def test_a_made_up_cursor_is_refused(server: Server, cursor: str) -> None:
    client = await server.client()
    chat = await client.chat()

    for path in ("/chats", f"/chats/{chat}/messages"):
        answer = await client.get(path, params={"cursor": cursor})
        assert answer.status == 422
        assert [e["path"] for e in answer.json["errors"]] == ["cursor"]


async def test_messages_page_from_the_newest_up(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    for n in range(3):
        await client.ask(chat, f"Question {n}")
    everything = await client.messages(chat)

    first = (await client.get(f"/chats/{chat}/messages?limit=4")).json
    second = (
        await client.get(
            f"/chats/{chat}/messages?limit=4&cursor={first['next_cursor']}"
        )
    ).json
    from_leaf = await client.get(
        f"/chats/{chat}/messages", params={"leaf": everything[2]["id"]}
    )

    assert [m["role"] for m in everything] == ["assistant", "user"] * 3
    assert first["items"] + second["items"] == everything
    assert second["next_cursor"] is None
    assert from_leaf.json["items"] == everything[2:]
    for child, parent in pairwise(everything):
        assert child["parent_id"] == parent["id"]


async def test_a_message_after_an_earlier_one_begins_a_branch(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    await client.ask(chat, "First")
    first_reply = (await client.messages(chat))[0]["id"]
    await client.ask(chat, "Second")
    await client.ask(chat, "Another second", parent_id=first_reply)

    branch = await client.messages(chat)

    assert [m["text"] for m in branch if m["role"] == "user"] == [
        "Another second",
        "First",
    ]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"content": ""}, "content"),
        ({"content": " \n"}, "content"),
        ({"content": []}, "content"),
        ({"content": [{"type": "text", "text": " "}]}, "content"),
        ({"content": [{"type": "video", "text": "x"}]}, "content.0.type"),
        ({"content": "nul \0"}, "content"),
        ({}, "content"),
        ({"content": "x", "parent_id": "y"}, "parent_id"),
    ],
    ids=str,
)
async def test_a_wrong_message_is_refused_and_nothing_stored(
    server: Server, fields: dict[str, Any], path: str
) -> None:
    client = await server.client()
    chat = await client.chat()

    answer = await client.post(f"/chats/{chat}/messages", json=fields)

    assert answer.status == 422
    assert path in {e["path"] for e in answer.json["errors"]}
    assert await client.messages(chat) == []


async def test_a_message_longer_than_the_models_window_is_refused(
    server: Server,
) -> None:
    client = await server.client()
    chat = await client.chat()

    answer = await client.post(
        f"/chats/{chat}/messages", json={"content": "word " * 200_000}
    )

    assert answer.status == 422
    assert "too long" in answer.json["detail"]
    assert await client.messages(chat) == []


async def test_blocks_of_text_are_kept_as_they_are(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        blocks = [
            {"type": "text", "text": "Say 3 words"},
            {"type": "text", "text": " \ud7ff🙂\\"},
        ]
        await client.post(
            f"/chats/{chat}/messages", json={"content": blocks, "stream": False}
        )
        question = (await client.messages(chat))[1]

    assert question["content"] == blocks
    assert question["text"] == "Say 3 words \ud7ff🙂\\"


@pytest.mark.parametrize("parent", ["a chat of another", "nowhere"])
async def test_a_parent_must_stand_in_the_same_chat(
    server: Server, parent: str
) -> None:
    client = await server.client()
    chat, other = await client.chat(title="a"), await client.chat(title="b")
    await client.ask(other, "Hello")
    parent_id = (await client.messages(other))[0]["id"]
    if parent == "nowhere":
        parent_id = other  # an id of no message

    answer = await client.post(
        f"/chats/{chat}/messages", json={"content": "x", "parent_id": parent_id}
    )

    assert answer.status == 404
    assert await client.messages(chat) == []


async def test_a_second_message_waits_for_the_reply(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    fake_openai.plan.faults = ["stall"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        async with client.asking(chat, "Say 50 words") as stream:
            events = await stream.until("delta")
            message_id = events[0].data["message_id"]

            second = await client.post(
                f"/chats/{chat}/messages", json={"content": "And?"}
            )
            again = await client.post(f"/messages/{message_id}/continue")

    for answer in (second, again):
        assert answer.status == 409
        assert answer.json["code"] == "turn_in_progress"
        assert answer.json["message_id"] == message_id


async def test_of_messages_sent_at_once_one_is_taken(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")

    answers = await asyncio.gather(
        *(
            client.post(
                f"/chats/{chat}/messages", json={"content": "Hi", "stream": False}
            )
            for _ in range(5)
        )
    )

    assert sorted({a.status for a in answers}) in ([201], [201, 409])
    taken = [a for a in answers if a.status == 201]
    assert len(await client.messages(chat)) == 2 * len(taken)


async def test_a_complete_reply_cannot_be_continued(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    await client.ask(chat, "Hello")
    reply, question = await client.messages(chat)

    for message in (reply, question):
        answer = await client.post(f"/messages/{message['id']}/continue")
        assert answer.status == 409
        assert answer.json["code"] == "nothing_to_continue"


async def test_only_the_newest_reply_can_be_continued(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    fake_openai.plan.faults = ["cut"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        await client.ask(chat, "Say 20 words")
        broken = (await client.messages(chat))[0]["id"]
        await client.ask(chat, "Say 3 words")

        answer = await client.post(f"/messages/{broken}/continue")

    assert answer.status == 409
    assert "newest" in answer.json["detail"]


async def test_a_continuation_can_come_whole(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    fake_openai.plan.faults = ["cut"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        await client.ask(chat, "Say 20 words")
        broken = (await client.messages(chat))[0]

        answer = await client.post(
            f"/messages/{broken['id']}/continue", json={"stream": False}
        )

    assert answer.status == 201
    assert answer.json["text"].startswith(broken["text"])
    assert answer.json["usage"]["output_tokens"] > broken["usage"]["output_tokens"]
    assert answer.json["usage"]["estimated"]


async def test_stop_after_the_end_changes_nothing(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    await client.ask(chat, "Hello")
    reply = (await client.messages(chat))[0]

    assert (await client.post(f"/messages/{reply['id']}/stop")).json == reply
    assert (await client.get(f"/messages/{reply['id']}")).json == reply


async def test_deleting_a_chat_ends_its_reply(
    serve: Any, fake_openai: FakeOpenAI, database: Database
) -> None:
    fake_openai.plan.faults = ["stall"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        async with client.asking(chat, "Say 50 words") as stream:
            await stream.until("delta")
            await client.delete(f"/chats/{chat}")
            events = await stream.all()

    assert events[-1].name == "error"
    assert events[-1].data["problem"]["status"] == 404
    async with database.unit_of_work(read_only=True) as session:
        assert (await session.scalars(select(Message))).all() == []


async def test_a_stream_that_was_seen_to_its_end_is_closed_for_good(
    server: Server,
) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    events = await client.ask(chat, "Hello")
    path = f"/messages/{events[0].data['message_id']}/stream"

    seen = await client.get(path, headers={"Last-Event-ID": events[-1].id})
    async with client.stream("GET", path) as stream:
        whole = await stream.all()
    async with client.stream(
        "GET", path, headers={"Last-Event-ID": events[3].id}
    ) as stream:
        rest = await stream.all()

    assert seen.status == 204
    assert text_of(whole) == text_of(events)
    assert whole[-1] == events[-1]
    assert text_of(events[:4]) + text_of(rest) == text_of(events)


@pytest.mark.parametrize("event_id", ["x", "0.0", "0.0.0.0.later", "-1.0.0.0"])
async def test_a_made_up_event_id_is_refused(server: Server, event_id: str) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    events = await client.ask(chat, "Hello")

    answer = await client.get(
        f"/messages/{events[0].data['message_id']}/stream",
        headers={"Last-Event-ID": event_id},
    )

    assert answer.status == 400
    assert "Last-Event-ID" in answer.json["detail"]


async def test_a_users_message_has_no_stream(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    await client.ask(chat, "Hello")
    question = (await client.messages(chat))[1]

    assert (await client.get(f"/messages/{question['id']}/stream")).status == 400


async def test_a_quiet_stream_sends_comments(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    fake_openai.plan.faults = ["stall"]
    async with serve(
        OPENAI_BASE_URL=fake_openai.base_url,
        KEEPALIVE_SECONDS="0.05",
        PROVIDER_STALL_SECONDS="0.5",
    ) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        async with client.asking(chat, "Say 50 words") as stream:
            events = await stream.all()

    assert events[-1].data["problem"]["code"] == "provider_timeout"
    assert stream.comments >= 3


async def test_the_end_of_a_session_ends_its_streams(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    """T4; the reply itself goes on, it belongs to the account."""
    fake_openai.plan.faults = ["stall"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        async with client.asking(chat, "Say 50 words") as stream:
            await stream.until("delta")
            form = {"refresh_token": client.tokens["refresh_token"]}
            await client.post("/auth/logout", json=form)
            events = await stream.all()
        assert server.runtime.turns.running == 1

    assert events[-1].name == "error"
    assert events[-1].data["problem"]["code"] == "unauthenticated"


async def test_past_capacity_a_turn_is_refused_and_nothing_stored(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    fake_openai.plan.faults = ["stall"]
    async with serve(
        OPENAI_BASE_URL=fake_openai.base_url, MAX_RUNNING_TURNS="1"
    ) as server:
        client = await server.client()
        first, second = await client.chat(model=MODEL), await client.chat(model=MODEL)
        async with client.asking(first, "Say 50 words") as stream:
            await stream.until("delta")
            answer = await client.post(
                f"/chats/{second}/messages", json={"content": "Hello"}
            )
        assert await client.messages(second) == []

    assert answer.status == 503
    assert answer.json["code"] == "overloaded"
    assert answer.headers["Retry-After"]


async def test_another_users_chats_and_messages_are_not_there(server: Server) -> None:
    ada, bob = await server.client("ada"), await server.client("bob")
    chat = await ada.chat(title="Secret")
    await ada.ask(chat, "Hello")
    message = (await ada.messages(chat))[0]["id"]

    for method, path in [
        ("GET", f"/chats/{chat}"),
        ("PATCH", f"/chats/{chat}"),
        ("DELETE", f"/chats/{chat}"),
        ("GET", f"/chats/{chat}/messages"),
        ("POST", f"/chats/{chat}/messages"),
        ("GET", f"/messages/{message}"),
        ("GET", f"/messages/{message}/stream"),
        ("POST", f"/messages/{message}/stop"),
        ("POST", f"/messages/{message}/continue"),
    ]:
        body = {"json": {"content": "x", "title": "x"}} if method != "GET" else {}
        answer = await bob.request(method, path, **body)
        assert answer.status == 404, (method, path, answer.body)
        assert answer.json["code"] == "not_found"
    assert (await bob.get("/chats")).json["items"] == []
    assert (await ada.get(f"/chats/{chat}")).json["title"] == "Secret"


async def test_models_tell_what_can_be_used_and_what_could_be(server: Server) -> None:
    client = await server.client()

    models = (await client.get("/models")).json["items"]

    by_name = {m["name"]: m for m in models}
    assert by_name[GUIDE]["available"]
    bedrock = [m for m in models if m["provider"] == "bedrock"]
    assert bedrock
    assert not any(m["available"] for m in bedrock)
    assert all(m["context_window"] > 0 for m in models)


async def test_a_page_of_large_messages_ends_before_its_limit(server: Server) -> None:
    """TRUST F11."""
    client = await server.client()
    chat = await client.chat()
    large = [{"type": "text", "text": "w" * 3_000_000}]
    await store_branch(server, chat, [large] * 5)

    sizes: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        at = {"limit": "100", "cursor": cursor} if cursor else {"limit": "100"}
        page = (await client.get(f"/chats/{chat}/messages", params=at)).json
        sizes.append(len(page["items"]))
        cursor = page["next_cursor"]

    assert sizes == [2, 2, 1]
