"""A chat's name, made by a job after its first turn."""

import asyncio
from typing import Any

import pytest

from app.services.chat.titles import shorten
from tests.client import Client
from tests.conftest import Server
from tests.fakes.openai import FakeOpenAI

MODEL = "openai/fake-small"


async def title_of(client: Client, chat: str) -> str:
    async with asyncio.timeout(10):
        while True:
            title = (await client.get(f"/chats/{chat}")).json["title"]
            if title is not None:
                return str(title)
            await asyncio.sleep(0.01)


async def test_the_model_names_the_chat(serve: Any, fake_openai: FakeOpenAI) -> None:
    fake_openai.plan.reply = lambda dialogue: (
        '"Sailing to Byzantium."\nand more' if "And" in str(dialogue) else "And?"
    )
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL)
        await client.ask(chat, "Hello")
        before = (await client.get(f"/chats/{chat}")).json["updated_at"]

        title = await title_of(client, chat)
        after = (await client.get(f"/chats/{chat}")).json["updated_at"]

    assert title == "Sailing to Byzantium"
    assert after == before


async def test_without_a_models_help_the_question_names_it(server: Server) -> None:
    client = await server.client()
    chat = await client.chat()
    await client.ask(chat, "How do I connect AWS Bedrock?\nPlease.")

    assert await title_of(client, chat) == "How do I connect AWS Bedrock?"


async def test_a_model_that_fails_leaves_the_question_as_the_name(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL)
        fake_openai.plan.faults = ["none", "unavailable"]
        await client.ask(chat, "Say 3 words")

        assert await title_of(client, chat) == "Say 3 words"


async def test_a_name_that_was_given_stays(serve: Any, fake_openai: FakeOpenAI) -> None:
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Mine")
        await client.ask(chat, "Hello")

        assert (await client.get(f"/chats/{chat}")).json["title"] == "Mine"
        assert len(fake_openai.calls) == 1


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        ("  Hello \n\n world", "Hello"),
        ("", "Chat"),
        ("word " * 30, "word " * 11 + "word…"),
    ],
)
def test_a_long_line_is_cut_between_words(text: str, title: str) -> None:
    assert shorten(text) == title
