"""`GET /chats?q=`: what is found, in which order, and that nothing else is."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from app.core.database import Database, utcnow
from app.models import Chat, Message, SearchEntry
from app.services.chat import search
from tests.client import Client
from tests.conftest import Server
from tests.fakes.openai import FakeOpenAI
from tests.integration.test_titles import title_of

MODEL = "openai/fake-small"


async def found(client: Client, q: str, **params: str) -> list[str]:
    answer = await client.get("/chats", params={"q": q, **params})
    assert answer.status == 200, answer.body
    return [str(chat["id"]) for chat in answer.json["items"]]


async def test_words_of_titles_questions_and_replies_are_found(server: Server) -> None:
    client = await server.client()
    title = await client.chat(title="Größere Pläne: a_journey")
    asked = await client.chat(title="Other")
    reply = await client.reply(asked, "How do I connect AWS Bedrock to zebras?")
    assert "AWS_REGION" in reply["text"]

    assert await found(client, "grossere") == [title]
    assert await found(client, "PLÄNE") == [title]
    assert await found(client, "journey plan") == [title]
    assert await found(client, "zebras") == [asked]
    assert await found(client, "aws region other") == [asked]
    assert await found(client, "zebra") == [asked]
    assert await found(client, "zebra other") == []
    assert await found(client, "zebras plane") == []


@pytest.mark.parametrize(
    ("title", "query"),
    [
        ("東京の天気", "天気"),
        ("Ελλάδα", "ελλαδα"),
        ("naïve café", "cafe nai"),
        ("C'est la vie", "l'a c'e"),
        ("x" * 60, "x" * 60),
        ("ﬁne", "fin"),
        ("한국어 이름", "한국"),
    ],
)
async def test_words_of_any_script_are_found(
    server: Server, title: str, query: str
) -> None:
    client = await server.client()
    chat = await client.chat(title=title)

    assert await found(client, query) == ([chat] if "l'a" not in query else [])


@pytest.mark.parametrize(
    "query",
    [
        '"',
        "'",
        "''; DROP TABLE chats; --",
        "a AND",
        "NOT b",
        "a OR",
        "NEAR(a b)",
        "terms:a",
        "a*b*",
        "^a",
        "a & | ! <-> b",
        ":*",
        "\\",
        "a\0b",
        "\ufffd\u200b",
        "%00",
        "(" * 400,
        "a " * 250,
        "\U0001f600",
    ],
    ids=str.__len__,
)
async def test_no_sign_in_a_query_means_anything(server: Server, query: str) -> None:
    client = await server.client()
    await client.chat(title="plain")

    answer = await client.get("/chats", params={"q": query})

    assert answer.status == 200, answer.body
    assert answer.json["items"] == []


async def test_an_endless_query_is_refused_and_an_empty_one_is_none(
    server: Server,
) -> None:
    client = await server.client()
    chat = await client.chat(title="plain")

    assert (await client.get("/chats", params={"q": "x" * 10_240})).status == 422
    assert await found(client, "") == [chat]


async def test_only_ones_own_are_found(server: Server, database: Database) -> None:
    ada, bob = await server.client("ada"), await server.client("bob")
    chat = await ada.chat(title="zebras")
    async with database.unit_of_work(read_only=True) as session:
        owner = (await session.scalars(select(Chat.user_id))).one()
    # Not even by writing the word that stands for somebody else.
    await bob.chat(title=f"{owner.hex} zebras")

    assert await found(ada, "zebras") == [chat]
    assert len(await found(bob, "zebras")) == 1


async def test_results_run_by_the_last_change_and_page_without_gaps(
    server: Server, database: Database
) -> None:
    client = await server.client()
    ids = [await client.chat(title=f"zebra {n}") for n in range(7)]
    await client.chat(title="horse")
    await client.patch(f"/chats/{ids[2]}", json={"pinned": True})
    async with database.unit_of_work() as session:
        for chat in await session.scalars(select(Chat)):
            if chat.title != "horse":
                age = int(str(chat.title).split()[1]) // 3
                chat.updated_at = utcnow() - timedelta(hours=age)
    expected = await found(client, "zebra")

    paged: list[str] = []
    params = {"q": "zebra", "limit": "2"}
    while True:
        page = (await client.get("/chats", params=params)).json
        paged += [c["id"] for c in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]

    assert set(expected) == set(ids)
    assert expected[-1] == ids[6]
    assert ids.index(expected[0]) < 3
    assert paged == expected


async def test_archived_and_temporary_chats_are_kept_apart(server: Server) -> None:
    client = await server.client()
    archived = await client.chat(title="zebra")
    await client.patch(f"/chats/{archived}", json={"archived": True})
    temporary = await client.chat(title="zebra", temporary=True)
    await client.ask(temporary, "zebra")

    assert await found(client, "zebra") == []
    assert await found(client, "zebra", archived="true") == [archived]


async def test_a_new_title_replaces_the_old_one(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title="zebra")

    await client.patch(f"/chats/{chat}", json={"title": "horse"})
    assert await found(client, "zebra") == []
    assert await found(client, "horse") == [chat]
    await client.patch(f"/chats/{chat}", json={"title": None})
    assert await found(client, "horse") == []


async def test_a_title_that_a_job_wrote_is_found(server: Server) -> None:
    client = await server.client()
    chat = await client.chat()
    await client.ask(chat, "Zebras")
    assert await title_of(client, chat) == "Zebras"
    question = (await client.messages(chat))[1]["id"]
    await client.delete(f"/messages/{question}")

    assert await found(client, "zebras") == [chat]


async def test_deleted_text_leaves_the_index(
    server: Server, database: Database
) -> None:
    """D3."""
    client = await server.client()
    chat, other = await client.chat(title="a"), await client.chat(title="zebra")
    await client.ask(chat, "zebra")
    question = (await client.messages(chat))[1]["id"]

    await client.delete(f"/messages/{question}")
    assert await found(client, "zebra") == [other]
    await client.delete(f"/chats/{other}")
    assert await found(client, "zebra") == []
    async with database.unit_of_work() as session:
        left = (await session.scalars(select(SearchEntry.terms))).all()
        assert [terms.split()[1] for terms in left] == ["a"]
        if database.is_sqlite:
            await session.execute(
                text("INSERT INTO search_index(search_index) VALUES('integrity-check')")
            )


async def test_text_is_indexed_when_it_is_final_not_while_it_grows(
    serve: Any, fake_openai: FakeOpenAI, database: Database
) -> None:
    fake_openai.plan.faults = ["stall"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="a")
        async with client.asking(chat, "Say 50 zebras") as stream:
            events = await stream.until("delta")
            assert await found(client, "zebras") == [chat]
            async with database.unit_of_work(read_only=True) as session:
                entries = (await session.scalars(select(SearchEntry))).all()
            assert {e.message_id for e in entries} == {
                None,
                UUID(events[0].data["user_message_id"]),
            }
            reply = events[0].data["message_id"]
            stopped = (await client.post(f"/messages/{reply}/stop")).json
        word = stopped["text"].split()[0]
        assert await found(client, word) == [chat]


async def test_what_a_dead_process_left_is_indexed_with_its_end(
    serve: Any, server: Server, database: Database
) -> None:
    client = await server.client()
    chat = await client.chat(title="a")
    await client.ask(chat, "Hello")
    assert await found(client, "hello") == [chat]  # nothing waits to be indexed
    async with database.unit_of_work() as session:
        message = (
            await session.scalars(select(Message).where(Message.role == "assistant"))
        ).one()
        message.status = "streaming"
        message.attempt = 1  # so that a late checkpoint of the first is none of this
        message.content = [{"type": "text", "text": "quagga"}]
    async with serve():
        pass

    assert await found(client, "quagga") == [chat]


async def test_what_was_there_before_the_index_is_indexed_by_a_job(
    server: Server, database: Database
) -> None:
    client = await server.client()
    chat = await client.chat(title="zebra")
    await client.ask(chat, "quagga")
    async with database.unit_of_work() as session:
        await session.execute(text("DELETE FROM search_entries"))
    assert await found(client, "zebra") == []

    for _ in range(2):
        await search.reindex(database)

    assert await found(client, "zebra quagga") == [chat]


def test_words_are_folded_split_and_cut() -> None:
    assert search.words("The the ÉTÉ x_y1 e-mail") == [
        "the", "ete", "x", "y1", "e", "mail",
    ]  # fmt: skip
    assert search.words("日本x") == ["日", "本", "x"]
    assert search.words("a" * 50) == ["a" * 40]
    assert search.words("…'\0") == []
    assert len(" ".join(search.words("\ufdfa" * 200_000))) <= 100_000
