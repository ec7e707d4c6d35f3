"""`Idempotency-Key`: what is sent twice happens once."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select, update

from app.core.database import Database, utcnow
from app.models import Chat, IdempotencyKey, Message
from app.services import idempotency
from tests.client import Answer, Client, text_of
from tests.conftest import Server
from tests.fakes.openai import FakeOpenAI

MODEL = "openai/fake-small"


def key(value: str = "one") -> dict[str, str]:
    return {"Idempotency-Key": value}


async def count(database: Database, model: Any) -> int:
    async with database.unit_of_work(read_only=True) as session:
        return len((await session.scalars(select(model.id))).all())


async def test_a_chat_is_created_once_and_the_answer_repeated(
    server: Server, database: Database
) -> None:
    client = await server.client()

    first = await client.post("/chats", json={"title": "a"}, headers=key())
    again = await client.post("/chats", json={"title": "a"}, headers=key())
    other = await client.post("/chats", json={"title": "a"}, headers=key("two"))

    assert (first.status, again.status) == (201, 201)
    assert again.body == first.body
    assert again.headers["Content-Type"] == first.headers["Content-Type"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert other.json["id"] != first.json["id"]
    assert await count(database, Chat) == 2


async def test_a_key_belongs_to_one_request_of_one_user(server: Server) -> None:
    ada, bob = await server.client("ada"), await server.client("bob")
    first = await ada.post("/chats", json={"title": "a"}, headers=key())

    other_body = await ada.post("/chats", json={"title": "b"}, headers=key())
    other_path = await ada.post(
        f"/chats/{first.json['id']}/fork", json={"title": "a"}, headers=key()
    )
    other_user = await bob.post("/chats", json={"title": "a"}, headers=key())
    nobody = await server.anonymous().post("/chats", json={}, headers=key())

    for answer in (other_body, other_path):
        assert answer.status == 409
        assert answer.json["code"] == "idempotency_key_reused"
    assert other_user.status == 201
    assert other_user.json["id"] != first.json["id"]
    assert nobody.status == 401


@pytest.mark.parametrize("value", ["", "x" * 256, "a b", "ü"])
async def test_a_key_that_cannot_be_one_is_refused(server: Server, value: str) -> None:
    client = await server.client()

    answer = await client.post("/chats", json={}, headers=key(value))

    assert answer.status == 422
    assert [e["path"] for e in answer.json["errors"]] == ["Idempotency-Key"]


async def test_of_twins_one_is_done_and_both_are_answered(
    server: Server, database: Database
) -> None:
    client = await server.client()

    answers = await asyncio.gather(
        *(client.post("/chats", json={"title": "a"}, headers=key()) for _ in range(8))
    )

    assert {a.status for a in answers} == {201}
    assert len({a.body for a in answers}) == 1
    assert await count(database, Chat) == 1


async def test_twins_at_two_servers_are_done_once(
    serve: Any, server: Server, database: Database
) -> None:
    client = await server.client()
    async with serve() as second:
        other = second.anonymous()
        other.use(client.tokens)
        answers = await asyncio.gather(
            *(
                one.post("/chats", json={"title": "a"}, headers=key())
                for one in (client, other) * 3
            )
        )

    assert {a.status for a in answers} == {201}
    assert len({a.body for a in answers}) == 1
    assert await count(database, Chat) == 1


async def test_what_failed_may_be_tried_again(server: Server) -> None:
    client = await server.client()
    body = {"title": "a", "model": "guide/none"}

    wrong = await client.post("/chats", json=body, headers=key())
    invalid = await client.post("/chats", json={"title": ""}, headers=key())
    right = await client.post("/chats", json={"title": "a"}, headers=key())

    assert [wrong.status, invalid.status, right.status] == [400, 422, 201]


async def test_a_message_is_sent_once_and_its_stream_repeated(
    server: Server, database: Database
) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    path = f"/chats/{chat}/messages"

    runs = []
    for _ in range(2):
        async with client.stream(
            "POST", path, json={"content": "Hello"}, headers=key()
        ) as stream:
            runs.append(await stream.all())
    whole = {"content": "Hello", "stream": False}
    first = await client.post(path, json=whole, headers=key("two"))
    again = await client.post(path, json=whole, headers=key("two"))

    assert runs[0][0].data == runs[1][0].data
    assert text_of(runs[0]) == text_of(runs[1])
    assert runs[0][-1] == runs[1][-1]
    assert (first.status, again.status) == (201, 201)
    assert again.json == first.json
    assert await count(database, Message) == 4


async def test_a_repeated_call_follows_a_reply_that_is_still_being_written(
    serve: Any, fake_openai: FakeOpenAI, database: Database
) -> None:
    fake_openai.plan.faults = ["stall"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        send = ("POST", f"/chats/{chat}/messages")
        options = {"json": {"content": "Say 50 words"}, "headers": key()}
        async with client.stream(*send, **options) as stream:
            events = await stream.until("delta")
        async with client.stream(*send, **options) as stream:
            again = await stream.until("delta")
            message = again[0].data["message_id"]
            stopped = (await client.post(f"/messages/{message}/stop")).json
            again = await stream.all()

    assert message == events[0].data["message_id"]
    assert again[-1].data["message"] == stopped
    assert len(fake_openai.calls) == 1
    assert await count(database, Message) == 2


async def test_twin_messages_are_sent_once(server: Server, database: Database) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    body = {"content": "Hello", "stream": False}

    answers = await asyncio.gather(
        *(
            client.post(f"/chats/{chat}/messages", json=body, headers=key())
            for _ in range(5)
        )
    )

    assert {a.status for a in answers} == {201}
    assert len({a.json["id"] for a in answers}) == 1
    assert await count(database, Message) == 2


async def test_edit_regenerate_continue_and_fork_happen_once(
    serve: Any, fake_openai: FakeOpenAI, database: Database
) -> None:
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        fake_openai.plan.faults = ["cut"]
        await client.ask(chat, "Say 20 words")
        reply, question = await client.messages(chat)

        async def twice(method: str, path: str, **fields: Any) -> list[Answer]:
            body = {"stream": False, **fields}
            return [
                await client.request(method, path, json=body, headers=key(path))
                for _ in range(2)
            ]

        message = f"/messages/{reply['id']}"
        for answers in (
            await twice("POST", f"{message}/continue"),
            await twice("POST", f"{message}/regenerate"),
            await twice("PATCH", f"/messages/{question['id']}", content="Hi"),
            await twice("POST", f"/chats/{chat}/fork"),
        ):
            first, again = answers
            assert first.status == again.status == 201
            assert first.json == again.json
            assert again.headers["Idempotency-Replayed"] == "true"
        assert len(fake_openai.calls) == 4
    assert await count(database, Chat) == 2
    assert await count(database, Message) == 5 + 2


async def test_a_link_is_shown_once(server: Server, database: Database) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    await client.ask(chat, "Hello")

    first = await client.post(f"/chats/{chat}/share", headers=key())
    again = await client.post(f"/chats/{chat}/share", headers=key())

    assert first.status == 201
    assert again.status == 409
    assert again.json["code"] == "secret_shown_once"
    assert again.json["id"] == first.json["id"]
    assert first.json["token"] not in again.body.decode()
    assert (await client.get(f"/shared/{first.json['token']}")).status == 200
    async with database.unit_of_work(read_only=True) as session:
        bodies = (await session.scalars(select(IdempotencyKey.body))).all()
    assert bodies == [None]


async def test_a_turn_that_failed_on_our_side_may_be_tried_again(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    fake_openai.plan.faults = ["cut"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        path = f"/chats/{chat}/messages"
        body = {"content": "Say 20 words", "stream": False}
        first = await client.post(path, json=body, headers=key())
        again = await client.post(path, json=body, headers=key())

    assert first.status == 502
    assert again.status == 201
    assert again.json["id"] != first.json["message_id"]


async def test_a_stream_that_failed_is_repeated_as_it_was(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    fake_openai.plan.faults = ["cut"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        runs = []
        for _ in range(2):
            async with client.stream(
                "POST",
                f"/chats/{chat}/messages",
                json={"content": "Say 20 words"},
                headers=key(),
            ) as stream:
                runs.append(await stream.all())

    assert runs[0][-1].name == "error"
    assert runs[1][-1] == runs[0][-1]
    assert text_of(runs[0]) == text_of(runs[1])


async def test_a_key_is_free_again_after_a_day(
    server: Server, database: Database
) -> None:
    client: Client = await server.client()
    body = {"title": "a"}
    first = await client.post("/chats", json=body, headers=key())
    async with database.unit_of_work() as session:
        await session.execute(update(IdempotencyKey).values(expires_at=utcnow()))

    second = await client.post("/chats", json=body, headers=key())
    again = await client.post("/chats", json=body, headers=key())

    assert second.json["id"] != first.json["id"]
    assert again.json == second.json
    async with database.unit_of_work() as session:
        await session.execute(update(IdempotencyKey).values(expires_at=utcnow()))
    await idempotency.purge(database)
    assert await count(database, IdempotencyKey) == 0


async def test_the_manual_of_the_api_names_the_header(server: Server) -> None:
    paths = server.app.openapi()["paths"]

    def takes_key(path: str, method: str) -> bool:
        parameters = paths[f"/api/v1{path}"][method].get("parameters", [])
        return [p["name"] for p in parameters].count("Idempotency-Key") == 1

    assert takes_key("/chats", "post")
    assert takes_key("/chats/{chat_id}/messages", "post")
    assert takes_key("/messages/{message_id}", "patch")
    assert not takes_key("/chats", "get")
