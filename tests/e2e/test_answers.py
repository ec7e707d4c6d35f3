"""The main job, as the first user of an installation does it."""

import pytest

from app.core.config import ROOT
from tests.e2e.conftest import Begin, NewDatabase, Provider
from tests.e2e.processes import PASSWORD, Server, until
from tests.e2e.reading import Reader
from tests.fakes.faults import FaultPlan, numbered_words

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_guide_answers_from_the_manual_with_quotes_that_stand_there(
    begin: Begin, new_database: NewDatabase
) -> None:
    """The main job on an installation without a model: register, ask, read, resume."""
    nothing = dict.fromkeys(("AWS_REGION", "OPENAI_BASE_URL"), "")
    server = await begin(**await new_database(), **nothing)
    client = server.anonymous()
    account = {"email": "Ada@Example.com", "password": PASSWORD}
    registered = await client.post("/auth/register", json=account)
    assert registered.status == 201
    assert registered.json["email"] == "ada@example.com"
    await client.login("ada@example.com", PASSWORD)
    chat = await client.chat()

    reader = Reader(client)
    await reader.ask(chat, "How do I connect AWS Bedrock?")

    assert reader.message["status"] == "complete"
    assert reader.message["model"] == "guide/manual"
    assert reader.message["text"] == reader.text
    assert "AWS_REGION" in reader.text
    assert reader.citations
    assert reader.message["citations"] == reader.citations
    for citation in reader.citations:
        page, _, _anchor = citation["source"].partition("#")
        assert page.startswith("docs/")
        text = (ROOT / page).read_text(encoding="utf-8")
        assert text[citation["start"] : citation["end"]] == citation["quote"]
    assert await client.messages(chat) == [
        reader.message,
        (await client.get(f"/messages/{reader.message['parent_id']}")).json,
    ]


async def test_a_model_answers_over_its_real_wire_format_byte_for_byte(
    server: Server, provider: Provider
) -> None:
    """The main job with Bedrock and with an OpenAI-compatible server."""
    client = await server.client()
    chat = await client.chat(model=provider.model)

    reader = Reader(client)
    await reader.ask(chat, "Say 500 words")

    assert reader.text == numbered_words(500)
    assert reader.message["text"] == numbered_words(500)
    assert reader.message["status"] == "complete"
    usage = reader.message["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (25, 500)
    assert not usage["estimated"]
    newest, question = await client.messages(chat)
    assert newest == reader.message
    assert question["text"] == "Say 500 words"


async def test_text_that_databases_stumble_over_is_streamed_stored_and_named(
    server: Server, provider: Provider
) -> None:
    """PostgreSQL cannot store a NUL as text, and positions count characters."""
    text = "nul \0 then \U0001f600 and e\u0301, \u2028 \x85 too. "
    provider.fake.plan = FaultPlan(text=text)
    client = await server.client()
    chat = await client.chat(model=provider.model)

    reader = Reader(client)
    await reader.ask(chat, "Say it", words=3)
    await reader.resume()

    assert reader.text == text
    assert reader.message["text"] == text
    assert (await client.messages(chat))[0] == reader.message

    async def title() -> object:
        return (await client.get(f"/chats/{chat}")).json["title"]

    await until(title, "the title")
    assert (await title()) == "nul then \U0001f600 and e\u0301,"
